#include "core/ops/cuda/kernel_table.h"

#include <array>

#include "core/device/cuda/stream.h"
#include "core/ops/all_kernels.h"

namespace adagate::cuda {
namespace {

struct Entry {
  std::string_view name;
  size_t args_bytes = 0;
  KernelFn run = nullptr;
};

template <class... Args>
constexpr std::array<Entry, sizeof...(Args)> entries(KernelList<Args...>) {
  return {Entry{Args::kKernel, sizeof(Args), [](void* queue, const void* args) {
                  launch(*static_cast<CudaStream*>(queue), *static_cast<const Args*>(args));
                }}...};
}

}  // namespace

KernelFn kernel_named(std::string_view name, size_t args_bytes) {
  static constexpr auto kEntries = entries(AllKernels{});
  for (const Entry& entry : kEntries)
    if (entry.name == name) return entry.args_bytes == args_bytes ? entry.run : nullptr;
  return nullptr;
}

}  // namespace adagate::cuda
