// Devices, errors and versions of the CUDA runtime, and the count of its calls.
#include <cstring>
#include <cuda_runtime_api.h>

#include "core/base/error.h"
#include "tests/cuda/emulator/device.h"
#include "tests/cuda/emulator/engine.h"
#include "tests/cuda/emulator/errors.h"
#include "tests/cuda/emulator/faults.h"
#include "tests/cuda/emulator/limits.h"

namespace adagate::emulator {
namespace {

constexpr int kVersion = 13000;  // CUDA 13.0

struct Calls {
  std::mutex mutex;
  std::map<std::string, int64_t> counts;
};
Calls& calls() {
  static auto* calls = new Calls;
  return *calls;
}

constinit thread_local cudaError_t last_error = cudaSuccess;

bool is_device(int index) {
  return index >= 0 && index < kDevices;
}

}  // namespace

void count_call(const char* name) {
  if (running_kernel) stop(fmt::format("{} is called inside a stream's work", name));
  std::lock_guard lock(calls().mutex);
  ++calls().counts[name];
}

std::map<std::string, int64_t> api_calls() {
  std::lock_guard lock(calls().mutex);
  return calls().counts;
}

cudaError_t failed(cudaError_t error) {
  return last_error = error;
}

}  // namespace adagate::emulator

using namespace adagate::emulator;

extern "C" {

cudaError_t cudaGetLastError() {
  cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}
cudaError_t cudaPeekAtLastError() {
  return last_error;
}

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidPitchValue:
      return "cudaErrorInvalidPitchValue";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorInvalidResourceHandle:
      return "cudaErrorInvalidResourceHandle";
    case cudaErrorNotReady:
      return "cudaErrorNotReady";
    case cudaErrorHostMemoryNotRegistered:
      return "cudaErrorHostMemoryNotRegistered";
    default:
      return "cudaErrorUnknown";
  }
}
const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidPitchValue:
      return "invalid pitch argument";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
    case cudaErrorInvalidResourceHandle:
      return "invalid resource handle";
    case cudaErrorNotReady:
      return "device not ready";
    case cudaErrorHostMemoryNotRegistered:
      return "pointer is not registered";
    default:
      return "unknown error";
  }
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = kVersion;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = kVersion;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  count_call("cudaGetDeviceCount");
  *count = kDevices;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int index) {
  count_call("cudaSetDevice");
  if (!is_device(index)) return failed(cudaErrorInvalidDevice);
  Device::set_current(index);
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* index) {
  count_call("cudaGetDevice");
  *index = Device::current().index();
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  count_call("cudaDeviceSynchronize");
  Device::current().wait_for_all();
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int index) {
  count_call("cudaGetDeviceProperties");
  if (!is_device(index)) return failed(cudaErrorInvalidDevice);
  *properties = {};
  std::strncpy(properties->name, "adagate's emulator of an H100", sizeof properties->name - 1);
  properties->uuid.bytes[0] = static_cast<char>(index + 1);
  properties->totalGlobalMem = device_bytes();
  properties->sharedMemPerBlock = kStaticShared;
  properties->sharedMemPerBlockOptin = kMostShared;
  properties->sharedMemPerMultiprocessor = kMostShared + 1024;
  properties->regsPerBlock = properties->regsPerMultiprocessor = 65536;
  properties->warpSize = 32;
  properties->maxThreadsPerBlock = kMostThreads;
  properties->maxThreadsPerMultiProcessor = 2048;
  properties->maxBlocksPerMultiProcessor = 32;
  properties->major = 9;
  properties->multiProcessorCount = kMultiprocessors;
  properties->l2CacheSize = 50 << 20;
  properties->memoryBusWidth = 5120;
  properties->asyncEngineCount = 3;
  properties->unifiedAddressing = properties->concurrentKernels = 1;
  properties->streamPrioritiesSupported = 1;
  properties->pciBusID = index + 1;
  const int threads[3] = {kMostThreads, kMostThreads, kMostThreadsZ};
  const int grid[3] = {static_cast<int>(kMostGridX), kMostGridYZ, kMostGridYZ};
  std::memcpy(properties->maxThreadsDim, threads, sizeof threads);
  std::memcpy(properties->maxGridSize, grid, sizeof grid);
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int index) {
  count_call("cudaDeviceGetAttribute");
  if (!is_device(index)) return failed(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = kMultiprocessors;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = 9;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = 0;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = int{kStaticShared};
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = int{kMostShared};
      break;
    case cudaDevAttrWarpSize:
      *value = 32;
      break;
    case cudaDevAttrMaxThreadsPerBlock:
      *value = kMostThreads;
      break;
    default:
      return failed(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char* text, int bytes, int index) {
  count_call("cudaDeviceGetPCIBusId");
  if (!is_device(index)) return failed(cudaErrorInvalidDevice);
  const std::string id = fmt::format("0000:{:02x}:00.0", index + 1);
  std::strncpy(text, id.c_str(), static_cast<size_t>(bytes));
  return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  count_call("cudaDeviceGetStreamPriorityRange");
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}
}
