// Those who watch what tokens choose: told by a RoutingStep, they change nothing.
#pragma once

#include "layers/routing_sink.h"

namespace adagate {

class RoutingObserver {
 public:
  virtual ~RoutingObserver() = default;
  // Every choice once, in order of layers and micro-batches; not when a segment is run again.
  // `layer`: place among the MoE layers. choice.rows.sample_ids tells which samples chose.
  virtual void on_choice(int64_t layer, const RoutingChoice& choice) = 0;
};

}  // namespace adagate
