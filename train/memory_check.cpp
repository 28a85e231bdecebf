#include "train/memory_check.h"

#include <algorithm>
#include <fmt/format.h>

#include "core/base/bytes_text.h"
#include "core/base/log.h"
#include "core/device/backend.h"
#include "parallel/agree.h"
#include "parallel/placement.h"

namespace adagate {
namespace {

double total(const MemoryEstimate& estimate) {
  return static_cast<double>(estimate.parameters) + static_cast<double>(estimate.activations);
}

std::string need_and_rest(const MemoryEstimate& estimate, const MemoryBudget& budget) {
  return fmt::format(
      "a rank takes about {}, of which {} for parameters and optimizer, but is left {} by {}",
      bytes_text(total(estimate)), bytes_text(estimate.parameters), bytes_text(budget.bytes),
      budget.source);
}

constexpr std::string_view kRemedy =
    "use a smaller model, train.batch or model.context, train.activation_checkpointing: block, or "
    "raise train.accumulation";

[[noreturn]] void fail_for_memory(const MemoryEstimate& estimate, const MemoryBudget& budget) {
  fail("out of memory before it starts: {}; {}", need_and_rest(estimate, budget), kRemedy);
}

}  // namespace

void check_memory(const MemoryEstimate& estimate, const MemoryBudget& budget) {
  if (total(estimate) > static_cast<double>(budget.bytes)) fail_for_memory(estimate, budget);
}

std::string tight_memory(const MemoryEstimate& estimate, const MemoryBudget& budget) {
  if (estimate.parameters > budget.bytes) fail_for_memory(estimate, budget);
  if (total(estimate) <= static_cast<double>(budget.bytes)) return "";
  return fmt::format("the memory may not suffice: {}; {}", need_and_rest(estimate, budget),
                     kRemedy);
}

MemoryBudget memory_for(Device device, int local_ranks) {
  if (device.is_cpu()) return available_memory(local_ranks);
  int devices = devices_of(device.kind);
  int sharing = (local_ranks - device.index + devices - 1) / devices;  // ranks take turns
  int64_t free = backend_of(device).facts(device.index).free_bytes;
  return {free / std::max(sharing, 1), fmt::format("the free memory of GPU {}", device.index)};
}

void check_memory_of_ranks(Communicator& world, const RunConfig& config, const Task& task,
                           Device device) {
  std::string warning;
  on_all_ranks(world, [&] {
    warning = tight_memory(estimate_memory(config, task, world.size()),
                           memory_for(device, read_launch_environment().local_size));
  });
  int64_t order = warning.empty() ? 0 : world.size() - world.rank();  // highest on the first one
  int64_t first = world.max(order);
  if (!warning.empty() && order == first) log::warn("{}", warning);
}

}  // namespace adagate
