#include "core/device/device_choice.h"
#include "tests/cuda/gpu.h"

namespace adagate::test {

Device gpu(int index) {
  return device_for_rank(choose_device_kind("cuda"), index);
}

void order_threads(uint64_t) {}
void guard_memory(bool) {}
std::map<std::string, int64_t> costly_calls() {
  return {};
}

}  // namespace adagate::test
