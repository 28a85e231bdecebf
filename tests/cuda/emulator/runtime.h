// What tests ask of the emulated CUDA runtime, and how stand-ins of other libraries put work into
// streams.
#pragma once

#include <cstdint>
#include <cuda_runtime_api.h>
#include <functional>
#include <map>
#include <string>

namespace adagate::emulator {

constexpr int kDevices = 8;

// How often each kernel has run in this process, by the name of the function alone: `norm` for
// adagate::cuda::norm<float, 256>.
std::map<std::string, int64_t> kernels_run();

// How often each function of the runtime was called in this process, by its name; beside these
// "pageable copy", for asynchronous copies from or to memory of the host that is not pinned.
std::map<std::string, int64_t> api_calls();

// Puts work into a stream. `run` may touch device memory; false: it can't be done yet, and is tried
// again, by any thread, until it is. `name` lives as long as the process.
void enqueue(cudaStream_t stream, const char* name, std::function<bool()> run);

// Whether all of it is in one allocation of a device.
bool is_device_memory(const void* first, size_t bytes = 1);

// Bytes of each device; what is beyond can't be allocated. At first 64 GiB.
void set_device_bytes(size_t bytes);

}  // namespace adagate::emulator
