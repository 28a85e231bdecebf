#include "core/ops/arrival_order.h"

namespace adagate {

ArrivalOrder arrival_order(std::span<const int64_t> counts, int64_t sources, Device device) {
  auto total = static_cast<int64_t>(counts.size());
  check(sources >= 1 && total % sources == 0, "arrival order: {} counts of {} sources", total,
        sources);
  int64_t groups = total / sources;
  std::vector<int64_t> of_group(static_cast<size_t>(groups));
  for (size_t i = 0; i < counts.size(); ++i) of_group[i % of_group.size()] += counts[i];
  std::vector<int64_t> offsets = offsets_of(of_group);
  int64_t rows = offsets.back();
  ArrivalOrder order{
      .offsets = {Tensor::empty({groups + 1}, DType::i64, device), std::move(offsets), rows},
      .to_sorted = Tensor::empty({rows}, DType::i32, device),
      .to_arrived = Tensor::empty({rows}, DType::i32, device)};
  Tensor on_device = Tensor::from(counts, {total}, device);
  launch_on(device, ArrivalOrderArgs{.counts = on_device.data<int64_t>(),
                                     .offsets = order.offsets.device.data<int64_t>(),
                                     .to_sorted = order.to_sorted.data<int32_t>(),
                                     .to_arrived = order.to_arrived.data<int32_t>(),
                                     .sources = sources,
                                     .groups = groups});
  return order;
}

}  // namespace adagate
