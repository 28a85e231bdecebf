// Memory, copies and fills of the CUDA runtime.
#include <cstring>
#include <cuda_runtime_api.h>
#include <vector>

#include "core/base/error.h"
#include "tests/cuda/emulator/device.h"
#include "tests/cuda/emulator/errors.h"
#include "tests/cuda/emulator/faults.h"

using namespace adagate::emulator;

namespace {

enum class Place { device, pinned, pageable };

// Stops for device memory that is not all in one allocation.
Place place_of(const void* first, size_t bytes, const char* call) {
  if (is_device_memory(first, bytes)) return Place::device;
  if (is_device_memory(first) || Device::holding(first))
    stop(fmt::format("{}: {} bytes from {} are not in one allocation of a device", call, bytes,
                     first));
  return is_pinned(first, bytes) ? Place::pinned : Place::pageable;
}

bool fits(cudaMemcpyKind kind, Place to, Place from) {
  const bool to_device = to == Place::device, from_device = from == Place::device;
  switch (kind) {
    case cudaMemcpyHostToHost:
      return !to_device && !from_device;
    case cudaMemcpyHostToDevice:
      return to_device && !from_device;
    case cudaMemcpyDeviceToHost:
      return !to_device && from_device;
    case cudaMemcpyDeviceToDevice:
      return to_device && from_device;
    default:
      return true;
  }
}

// Rows of bytes; one row for most copies.
struct Copy {
  std::byte* to;
  size_t to_pitch;
  const std::byte* from;
  size_t from_pitch;
  size_t row_bytes, rows;

  size_t to_span() const { return (rows - 1) * to_pitch + row_bytes; }
  size_t from_span() const { return (rows - 1) * from_pitch + row_bytes; }
  void run() const {
    for (size_t row = 0; row < rows; ++row)
      std::memmove(to + row * to_pitch, from + row * from_pitch, row_bytes);
  }
};

// Both devices' memory open, where a copy goes from one to another.
void run_open(const Copy& copy) {
  Device *to = Device::holding(copy.to), *from = Device::holding(copy.from);
  if (to) to->memory().open();
  if (from) from->memory().open();
  copy.run();
  if (from) from->memory().close();
  if (to) to->memory().close();
}

// As the runtime does it: from pageable memory the bytes are taken before the call returns, to
// pageable memory they are there when it does.
cudaError_t enqueue_copy(const char* call, Copy copy, cudaMemcpyKind kind, cudaStream_t stream) {
  count_call(call);
  if (copy.row_bytes == 0 || copy.rows == 0) return cudaSuccess;
  if (copy.row_bytes > copy.to_pitch || copy.row_bytes > copy.from_pitch)
    return failed(cudaErrorInvalidPitchValue);
  const Place to = place_of(copy.to, copy.to_span(), call);
  const Place from = place_of(copy.from, copy.from_span(), call);
  if (!fits(kind, to, from)) return failed(cudaErrorInvalidValue);
  if (to == Place::pageable || from == Place::pageable) count_call("pageable copy");
  if (from == Place::pageable) {
    std::vector<std::byte> bytes(copy.from, copy.from + copy.from_span());
    enqueue(stream, Work{call, [copy, bytes = std::move(bytes)]() mutable {
                           copy.from = bytes.data();
                           run_open(copy);
                           return true;
                         }});
  } else {
    enqueue(stream, Work{call, [copy] {
                           run_open(copy);
                           return true;
                         }});
  }
  if (to == Place::pageable && stream && stream != cudaStreamLegacy)
    Device::of(stream->device).wait_for(*stream);
  return cudaSuccess;
}

Copy row(void* to, const void* from, size_t bytes) {
  return {static_cast<std::byte*>(to), bytes, static_cast<const std::byte*>(from), bytes, bytes, 1};
}

cudaError_t enqueue_fill(const char* call, void* data, int value, size_t bytes,
                         cudaStream_t stream) {
  count_call(call);
  if (bytes == 0) return cudaSuccess;
  if (place_of(data, bytes, call) != Place::device) return failed(cudaErrorInvalidValue);
  enqueue(stream, Work{call, [=] {
                         std::memset(data, value, bytes);
                         return true;
                       }});
  return cudaSuccess;
}

}  // namespace

extern "C" {

cudaError_t cudaMalloc(void** data, size_t bytes) {
  count_call("cudaMalloc");
  *data = nullptr;
  if (bytes == 0) return cudaSuccess;
  *data = Device::current().memory().allocate(bytes);
  return *data ? cudaSuccess : failed(cudaErrorMemoryAllocation);
}

// Waits for the whole device, as the runtime does.
cudaError_t cudaFree(void* data) {
  count_call("cudaFree");
  if (!data) return cudaSuccess;
  for (int index = 0; index < kDevices; ++index) {
    Device& device = Device::of(index);
    if (!device.memory().holds(data, 1)) continue;
    device.wait_for_all();
    if (device.memory().release(data)) return cudaSuccess;
  }
  stop(
      fmt::format("cudaFree of {}, which cudaMalloc has not given or which is free already", data));
}

cudaError_t cudaMallocHost(void** data, size_t bytes) {
  count_call("cudaMallocHost");
  *data = allocate_pinned(bytes);
  return *data ? cudaSuccess : failed(cudaErrorMemoryAllocation);
}
cudaError_t cudaHostAlloc(void** data, size_t bytes, unsigned) {
  return cudaMallocHost(data, bytes);
}
cudaError_t cudaFreeHost(void* data) {
  count_call("cudaFreeHost");
  if (!data) return cudaSuccess;
  Device::current().wait_for_all();
  if (!release_pinned(data)) stop(fmt::format("cudaFreeHost of {}, which is not pinned", data));
  return cudaSuccess;
}
cudaError_t cudaHostRegister(void* data, size_t bytes, unsigned) {
  count_call("cudaHostRegister");
  register_pinned(data, bytes);
  return cudaSuccess;
}
cudaError_t cudaHostUnregister(void* data) {
  count_call("cudaHostUnregister");
  Device::current().wait_for_all();
  return unregister_pinned(data) ? cudaSuccess : failed(cudaErrorHostMemoryNotRegistered);
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  count_call("cudaMemGetInfo");
  *total = device_bytes();
  *free = *total - std::min(*total, Device::current().memory().used());
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* data) {
  count_call("cudaPointerGetAttributes");
  *attributes = {};
  attributes->device = -1;
  if (is_device_memory(data)) {
    attributes->type = cudaMemoryTypeDevice;
    attributes->device = Device::current().index();
    if (Device* device = Device::holding(data)) attributes->device = device->index();
    attributes->devicePointer = const_cast<void*>(data);
  } else if (is_pinned(data, 1)) {
    attributes->type = cudaMemoryTypeHost;
    attributes->devicePointer = attributes->hostPointer = const_cast<void*>(data);
  } else {
    attributes->type = cudaMemoryTypeUnregistered;
    attributes->hostPointer = const_cast<void*>(data);
  }
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  return enqueue_copy("cudaMemcpyAsync", row(to, from, bytes), kind, stream);
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return enqueue_copy("cudaMemcpy", row(to, from, bytes), kind, nullptr);
}
cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t bytes,
                                cudaStream_t stream) {
  return enqueue_copy("cudaMemcpyPeerAsync", row(to, from, bytes), cudaMemcpyDeviceToDevice,
                      stream);
}
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch,
                              size_t width, size_t height, cudaMemcpyKind kind,
                              cudaStream_t stream) {
  const Copy copy{static_cast<std::byte*>(to),
                  to_pitch,
                  static_cast<const std::byte*>(from),
                  from_pitch,
                  width,
                  height};
  return enqueue_copy("cudaMemcpy2DAsync", copy, kind, stream);
}

cudaError_t cudaMemsetAsync(void* data, int value, size_t bytes, cudaStream_t stream) {
  return enqueue_fill("cudaMemsetAsync", data, value, bytes, stream);
}
cudaError_t cudaMemset(void* data, int value, size_t bytes) {
  return enqueue_fill("cudaMemset", data, value, bytes, nullptr);
}
}
