// The gate: scores of all experts, the policy's choice, weights of the outputs.
#pragma once

#include <memory>

#include "core/nn/module.h"
#include "layers/step_context.h"
#include "layers/token_rows.h"
#include "moe/gating_policy.h"
#include "moe/routing_plan.h"

namespace adagate {

// Parameter: weight [width, experts], kept and computed with in full precision.
class Gate : public Module {
 public:
  // `layer`: this layer's place among the MoE layers, from 0. host_counts: the host needs to know
  // each expert's number of assignments, whose plans are read from the device then.
  Gate(int64_t width, int64_t experts, int64_t layer, const GateConfig& config,
       double initial_stddev, const MakePolicy& make_policy = make_gating_policy,
       bool host_counts = false);

  // x [tokens, width]. Tells context.routing, if there is one, and adds the gradients of its
  // balance losses in backward. A pass that has been run before repeats its choice.
  RoutingPlan forward(const Tensor& x, const StepContext& context, const TokenRows& rows) const;

  // Ends an optimizer step: see GatingPolicy.
  void end_step(const RoutingSums& global) { policy_->end_step(global); }

  const GatingPolicy& policy() const { return *policy_; }

 private:
  Parameter weight_;
  std::unique_ptr<GatingPolicy> policy_;
  int64_t layer_;
  bool renormalize_, pair_gap_, host_counts_;
};

}  // namespace adagate
