// The Mixture-of-Experts feed-forward: y = sum over the chosen experts e of R_e FFN_e(x).
#pragma once

#include "layers/feed_forward.h"
#include "moe/dispatcher.h"
#include "moe/experts.h"
#include "moe/gate.h"
#include "moe/moe_config.h"
#include "parallel/mesh.h"

namespace adagate {

struct MoeLayerConfig {
  int64_t width = 0, hidden = 0;  // hidden: of one expert
  Activation activation = Activation::gelu;
  bool bias = true;
  double initial_stddev = 0.02;  // of the gate and `up`
  double output_initial_stddev = 0.02;
  int64_t layer = 0;  // place among the model's MoE layers, from 0
  MoeConfig moe = {};
  MakePolicy make_policy = make_gating_policy;
};

// Parameters: gate.weight, experts.up.weight, experts.up.bias, experts.down.weight,
// experts.down.bias; this rank holds its share of the experts.
class MoeLayer final : public FeedForwardLayer {
 public:
  // Throws Error when the experts can't be split evenly over mesh.expert.
  MoeLayer(const MoeLayerConfig& config, const Mesh& mesh);

  // x [tokens, width] -> [tokens, width]; padding tokens give zero. Collective over mesh.expert, as
  // is its backward.
  Tensor forward(const Tensor& x, const StepContext& context, const TokenRows& rows) override;

  // Ends an optimizer step with the layer's sums over all micro-batches and ranks.
  void end_step(const RoutingSums& global) { gate_.end_step(global); }

  const Gate& gate() const { return gate_; }

 private:
  MoeLayerConfig config_;
  Dispatcher dispatcher_;
  Gate gate_;
  Experts experts_;
};

}  // namespace adagate
