#include "core/device/backend.h"
#include "tests/cuda/emulator/config.h"
#include "tests/cuda/emulator/runtime.h"
#include "tests/cuda/gpu.h"

extern "C" adagate::Backend* adagate_backend(uint32_t abi);

namespace adagate::test {

Device gpu(int index) {
  register_backend(DeviceKind::cuda, *adagate_backend(kBackendAbi));
  return {DeviceKind::cuda, index % devices_of(DeviceKind::cuda)};
}

void order_threads(uint64_t order) {
  using emulator::Order;
  emulator::config().order = order == 0   ? Order::forward
                             : order == 1 ? Order::reverse
                                          : Order::random;
  emulator::config().seed = order;
}

void guard_memory(bool guarded) {
  emulator::config().guarded = guarded;
}

std::map<std::string, int64_t> costly_calls() {
  std::map<std::string, int64_t> costly;
  auto all = emulator::api_calls();
  for (const char* name :
       {"cudaMalloc", "cudaFree", "cudaMallocHost", "cudaHostAlloc", "cudaFreeHost", "cudaMemcpy",
        "cudaMemset", "cudaDeviceSynchronize", "cudaStreamCreateWithFlags", "pageable copy"})
    costly[name] = all[name];
  return costly;
}

}  // namespace adagate::test
