// Kernels: how their launches are queued and counted, and what the API says of them.
#include <cuda_runtime_api.h>
#include <string_view>
#include <sys/mman.h>

#include "core/base/error.h"
#include "tests/cuda/emulator/device.h"
#include "tests/cuda/emulator/faults.h"
#include "tests/cuda/emulator/launch.h"
#include "tests/cuda/emulator/limits.h"

namespace adagate::emulator {
namespace {

struct Kernels {
  std::mutex mutex;
  std::map<std::string, int64_t> run;
  std::map<const void*, size_t> allowed_shared;
};
Kernels& kernels() {
  static auto* kernels = new Kernels;
  return *kernels;
}

// "(cuda::norm<float, 256>)" -> "norm".
std::string function_name(std::string_view written) {
  while (!written.empty() && (written.front() == '(' || written.front() == ' '))
    written.remove_prefix(1);
  written = written.substr(0, written.find_first_of("<) "));
  if (size_t scope = written.rfind(':'); scope != written.npos) written.remove_prefix(scope + 1);
  return std::string(written);
}

size_t shared_limit(const void* function) {
  std::lock_guard lock(kernels().mutex);
  auto found = kernels().allowed_shared.find(function);
  return found == kernels().allowed_shared.end() ? kStaticShared : kMostShared;
}

size_t dynamic_limit(const void* function) {
  std::lock_guard lock(kernels().mutex);
  auto found = kernels().allowed_shared.find(function);
  return found == kernels().allowed_shared.end() ? kStaticShared : found->second;
}

// Whether a word is an address of the host: programs and libraries, heaps, stacks and mappings all
// lie above 2^46. Numbers lie below, and so do words of small flags and types.
bool is_host_address(uint64_t word) {
  if (word < (uint64_t{1} << 46) || word >= (uint64_t{1} << 47)) return false;
  const auto* pointer = reinterpret_cast<const void*>(word);
  if (Device::holding(pointer) || is_device_memory(pointer) || is_pinned(pointer, 1)) return false;
  void* page = reinterpret_cast<void*>(word & ~uint64_t{4095});
  return msync(page, 1, MS_ASYNC) == 0;  // fails where nothing is mapped
}

[[noreturn]] void stop_for_host_address(const char* kernel, int argument, const void* pointer) {
  stop(fmt::format("kernel {}: argument {} holds {}, which is memory of the host", kernel, argument,
                   pointer));
}

}  // namespace

void check_pointer(const char* kernel, int argument, const void* pointer) {
  if (is_host_address(reinterpret_cast<uint64_t>(pointer)))
    stop_for_host_address(kernel, argument, pointer);
}

void check_words(const char* kernel, int argument, const void* value, size_t bytes) {
  for (size_t at = 0; at + sizeof(uint64_t) <= bytes; at += sizeof(uint64_t)) {
    uint64_t word;
    std::memcpy(&word, static_cast<const std::byte*>(value) + at, sizeof word);
    if (is_host_address(word))
      stop_for_host_address(kernel, argument, reinterpret_cast<const void*>(word));
  }
}

void enqueue_kernel(cudaStream_t stream, Launch launch, const void* function) {
  count_call("launch");
  launch.shared_limit = dynamic_limit(function);
  check_launch(launch);
  launch.shared_limit = shared_limit(function);
  const char* name = launch.kernel;
  enqueue(stream, Work{name, [launch = std::move(launch)] {
                         run_grid(launch);
                         std::lock_guard lock(kernels().mutex);
                         ++kernels().run[function_name(launch.kernel)];
                         return true;
                       }});
}

std::map<std::string, int64_t> kernels_run() {
  std::lock_guard lock(kernels().mutex);
  return kernels().run;
}

}  // namespace adagate::emulator

using namespace adagate::emulator;

extern "C" {

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  count_call("cudaFuncSetAttribute");
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value < 0 || static_cast<size_t>(value) > kMostShared) return cudaErrorInvalidValue;
  std::lock_guard lock(kernels().mutex);
  kernels().allowed_shared[function] = static_cast<size_t>(value);
  return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  count_call("cudaFuncGetAttributes");
  *attributes = {};
  attributes->maxThreadsPerBlock = kMostThreads;
  attributes->numRegs = 32;
  attributes->ptxVersion = attributes->binaryVersion = 90;
  return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void*, int threads,
                                                          size_t shared_bytes) {
  count_call("cudaOccupancyMaxActiveBlocksPerMultiprocessor");
  const int by_threads = 2048 / std::max(threads, 1);
  const int by_shared = static_cast<int>(kMostShared / std::max(shared_bytes, size_t{1024}));
  *blocks = std::min(by_threads, by_shared);
  return cudaSuccess;
}
}
