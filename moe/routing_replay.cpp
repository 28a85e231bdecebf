#include "moe/routing_replay.h"

namespace adagate {

void RoutingReplay::begin(int64_t micro_batches, int64_t layers, bool keep) {
  layers_ = layers;
  micro_batch_ = 0;
  choices_.assign(static_cast<size_t>(keep ? micro_batches * layers : 0), {});
}

void RoutingReplay::keep(int64_t layer, const Selection& choice) {
  if (!choices_.empty()) choices_[static_cast<size_t>(micro_batch_ * layers_ + layer)] = choice;
}

const Selection& RoutingReplay::kept(int64_t layer) const {
  auto at = static_cast<size_t>(micro_batch_ * layers_ + layer);
  check(at < choices_.size() && choices_[at].row_start,
        "MoE layer {}, micro-batch {}: run again before it ran", layer, micro_batch_);
  return choices_[at];
}

}  // namespace adagate
