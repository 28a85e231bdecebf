// How tokens choose experts, given the gate's probabilities. A new policy is one class and one
// entry in kGatingPolicies (moe/policy_table.h).
#pragma once

#include <functional>
#include <memory>

#include "core/nn/module.h"
#include "core/ops/routing.h"
#include "moe/moe_config.h"
#include "moe/policy_table.h"

namespace adagate {

// What a policy may look at. Random choices are addressed by (seed, step, layer, address), never by
// a token's place on a rank.
struct GateInput {
  const GateScores& scores;
  Tensor mask;       // u8 [tokens], 1 = real; empty: all
  Tensor addresses;  // i64 [tokens]; empty: the index
  uint64_t seed = 0;
  uint64_t step = 0;
  int64_t layer = 0;
};

// A policy is a module: what it registers belongs to the model.
class GatingPolicy : public Module {
 public:
  virtual int64_t k_max() const = 0;  // most experts of one token
  // Padding tokens take none. Permuting tokens permutes the result.
  virtual Selection choose(const GateInput& in) const = 0;
  // After each optimizer step, with its layer's sums over all micro-batches and ranks, so that a
  // state that follows from them stays the same on every rank. Not after a step that was skipped
  // for a gradient that is not finite: such a step changes nothing.
  virtual void end_step(const RoutingSums&) {}
};

// Keeps the first of the experts sorted by score, as many as the rule says.
class RulePolicy : public GatingPolicy {
 public:
  explicit RulePolicy(SelectionRule rule) : rule_(rule) {}
  int64_t k_max() const override { return rule_.k_max; }
  Selection choose(const GateInput& in) const override {
    return select_experts(in.scores, rule_, in.mask, in.addresses, score_bias());
  }

 protected:
  // f32 [experts], what the score of each has above its probability. It sways the choice alone: the
  // outputs are weighed by the probabilities. Empty: nothing, at no cost.
  virtual Tensor score_bias() const { return {}; }

  SelectionRule rule_;
};

// The k most probable experts; throws Error unless k is 1 to `experts`.
std::unique_ptr<GatingPolicy> make_fixed_policy(int64_t k, int64_t experts);

// Throws Error on an unknown name, listing the known ones. k beyond `experts` is an error too, but
// for top2, adaptive and random_one_or_two, which take the one expert there is.
std::unique_ptr<GatingPolicy> make_gating_policy(const GateConfig& config, int64_t experts);

// For programs that bring policies of their own: what makes those of a model's gates.
using MakePolicy =
    std::function<std::unique_ptr<GatingPolicy>(const GateConfig& config, int64_t experts)>;

}  // namespace adagate
