#include "moe/gate.h"

namespace adagate {

Gate::Gate(int64_t width, int64_t experts, int64_t layer, const GateConfig& config,
           double initial_stddev, const MakePolicy& make_policy, bool host_counts)
    : weight_({.shape = {width, experts},
               .init = Init::normal(initial_stddev),
               .full_precision = true}),
      policy_(make_policy(config, experts)),
      layer_(layer),
      renormalize_(config.combine == "renormalized"),
      pair_gap_(config.normalize == "pair"),
      host_counts_(host_counts) {
  check(renormalize_ || config.combine == "raw", "moe.gate.combine is '{}': raw or renormalized",
        config.combine);
  add("weight", weight_);
  add("policy", *policy_);
}

RoutingPlan Gate::forward(const Tensor& x, const StepContext& context,
                          const TokenRows& rows) const {
  RoutingSink* sink = context.routing;
  const Selection* earlier = sink ? sink->earlier_choice(layer_) : nullptr;
  GateScores scores = gate_scores(x, weight_.tensor());
  RoutingPlan plan;
  plan.experts = scores.probabilities.dim(1);
  plan.selection = earlier ? *earlier
                           : policy_->choose({.scores = scores,
                                              .mask = rows.mask,
                                              .addresses = rows.addresses,
                                              .seed = context.seed,
                                              .step = static_cast<uint64_t>(context.step),
                                              .layer = layer_});
  if (host_counts_) plan.selection.read_counts();
  check(plan.tokens() == x.rows(), "gate of MoE layer {}: {} tokens, the plan has {}", layer_,
        x.rows(), plan.tokens());
  plan.weight =
      routing_weights(x, weight_.tensor(), scores, plan.selection, renormalize_, rows.mask,
                      sink ? sink->loss_gradient(layer_) : RoutingLossGradient());
  if (sink && !earlier) {
    Tensor sums = routing_sums(scores, plan.selection, rows.mask, pair_gap_);
    sink->add_choice(
        layer_, {.selection = plan.selection, .weight = plan.weight, .sums = sums, .rows = rows});
  }
  return plan;
}

}  // namespace adagate
