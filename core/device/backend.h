// The seam between adagate and what computes on devices other than the CPU: memory, copies, queues,
// and kernels that are found by name. A backend may be a library that is opened at run time
// (libadagate_cuda.so), so that a program built without CUDA can use one; it must not link a copy
// of adagate's own libraries, whose tape and allocator are one per process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "core/device/allocator.h"
#include "core/device/device.h"
#include "core/device/memory_block.h"

namespace adagate {

// Raised with every change of Backend or of what an Args struct means; changes of its size are
// noticed by themselves.
constexpr uint32_t kBackendAbi = 2;

// What there is to tell of a device.
struct DeviceFacts {
  std::string name;
  int64_t memory_bytes = 0, free_bytes = 0;
};

enum class CopyKind : uint8_t { to_device, to_host, on_device };

// Puts a kernel into a queue. `args` points to its Args struct, which is copied before the call
// returns; arrays of the host that it names (see GroupedMatmulArgs) are read before, too.
using KernelFn = void (*)(void* queue, const void* args);

// Work of one thread on one device is done in the order in which it was given: kernels, copies and
// the reuse of released memory. All methods may be called from any thread.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual int devices() const = 0;
  virtual DeviceFacts facts(int index) = 0;
  // What tensors hold of its memory.
  virtual AllocatorStats memory(int index) = 0;

  // Contents undefined. Throws Error naming the size when memory is exhausted.
  virtual MemoryBlock allocate(size_t bytes, int index) = 0;
  virtual void release(MemoryBlock block, int index) = 0;

  // The calling thread's queue on a device.
  virtual void* queue(int index) = 0;
  // To the host: done when the call returns. To the device: the host's bytes may be written again
  // then.
  virtual void copy(void* to, const void* from, size_t bytes, CopyKind kind, int index) = 0;
  // Until everything that the calling thread has given to the device is done. Throws what a kernel
  // has failed with.
  virtual void synchronize(int index) = 0;

  // A mark in the calling thread's queue, for the time between two of them; null: the backend has
  // no clock. Given back with forget().
  virtual void* mark(int) { return nullptr; }
  virtual void forget(void*) {}
  // Seconds between two marks of one queue; nothing while the queue has not passed the later one.
  virtual std::optional<double> seconds_between(void*, void*) { return {}; }

  // Null: the backend has no such kernel, or one with Args of another size.
  virtual KernelFn kernel(std::string_view name, size_t args_bytes) = 0;
};

// What a backend's library exports, under this name; null for an ABI that it doesn't know.
using BackendEntry = Backend* (*)(uint32_t abi);
constexpr const char* kBackendEntry = "adagate_backend";

// From here on tensors may live on devices of this kind. Once per kind and process.
void register_backend(DeviceKind kind, Backend& backend);

// Opens a library and registers its backend; nothing where it is registered already. Throws Error
// naming the file and what is wrong with it.
void open_backend(DeviceKind kind, const std::string& file);

// How many devices of this kind there are. Throws Error when there is no backend for it.
int devices_of(DeviceKind kind);

// Throws Error naming the device when there is no backend for it.
Backend& backend_of(Device device);

// What tensors hold of a device's memory, the CPU's included.
AllocatorStats memory_stats(Device device);

// Throws Error naming the kernel when the backend lacks it.
KernelFn find_kernel(DeviceKind kind, std::string_view name, size_t args_bytes);

}  // namespace adagate
