// Where layers that choose experts for each token tell what they chose and did, and ask what they
// chose in an earlier run of the same forward pass. moe/routing_step.h is the one of a training
// step; a layer without one just works.
#pragma once

#include <cstdint>
#include <optional>

#include "core/ops/routing.h"
#include "layers/token_rows.h"

namespace adagate {

// A layer's choice for a micro-batch. Refers to what is gone when the call returns.
struct RoutingChoice {
  const Selection& selection;
  const Tensor& weight;   // of the experts' outputs, as long as selection.expert
  const Tensor& sums;     // f64, as routing_sums() returns them
  const TokenRows& rows;  // which samples the tokens are of
};

// What a layer's experts do in one forward pass, as this rank sees it.
struct ExpertWork {
  // Assignments that this rank's experts work on. Empty: those of this rank's own tokens, which the
  // sums of the choice count, so that the host need not know them now.
  std::optional<int64_t> rows = 0;
  int64_t rows_sent = 0;     // of this rank's tokens, to experts elsewhere
  int64_t bytes_sent = 0;    // to other ranks, there and back
  double flops = 0;          // of the gate, and of what else does not follow from the rows
  double flops_per_row = 0;  // of the experts
};

// `layer`: place among the model's MoE layers, from 0.
class RoutingSink {
 public:
  virtual ~RoutingSink() = default;

  // The choice to repeat when this forward pass has been run before; null: it runs for the first
  // time, and tells of it.
  virtual const Selection* earlier_choice(int64_t layer) const = 0;
  virtual void add_choice(int64_t layer, const RoutingChoice& choice) = 0;
  virtual void add_work(int64_t layer, const ExpertWork& work) = 0;

  // Asked for in backward: what the balance losses add to the gate's gradient. Null: nothing.
  virtual RoutingLossGradient loss_gradient(int64_t layer) const = 0;
};

}  // namespace adagate
