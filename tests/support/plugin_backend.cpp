// A backend as a library of its own: linked with nothing of adagate's, opened at run time, with
// memory of the host and one kernel. What libadagate_cuda.so is, as small as it gets.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "core/device/backend.h"
#include "core/tensor/tensor_kernels.h"

namespace {

using namespace adagate;

void fill(void*, const void* args) {
  const auto& a = *static_cast<const FillArgs*>(args);
  std::fill_n(static_cast<float*>(a.out), a.n, static_cast<float>(a.value));
}

class PluginBackend final : public Backend {
 public:
  int devices() const override { return 2; }
  DeviceFacts facts(int) override { return {.name = "memory of the host"}; }
  AllocatorStats memory(int) override { return {}; }
  MemoryBlock allocate(size_t bytes, int) override { return {std::malloc(bytes + 1), bytes + 1}; }
  void release(MemoryBlock block, int) override { std::free(block.data); }
  void* queue(int) override { return nullptr; }
  void copy(void* to, const void* from, size_t bytes, CopyKind, int) override {
    std::memcpy(to, from, bytes);
  }
  void synchronize(int) override {}
  KernelFn kernel(std::string_view name, size_t args_bytes) override {
    return name == FillArgs::kKernel && args_bytes == sizeof(FillArgs) ? fill : nullptr;
  }
};

}  // namespace

extern "C" Backend* adagate_backend(uint32_t abi) {
  static PluginBackend backend;
  return abi == kBackendAbi ? &backend : nullptr;
}
