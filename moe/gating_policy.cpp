#include "moe/gating_policy.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace adagate {
namespace {

// Two experts for a random share of the tokens: adaptive gating's compute without its choice.
class RandomOneOrTwo : public RulePolicy {
 public:
  using RulePolicy::RulePolicy;
  Selection choose(const GateInput& in) const override {
    SelectionRule rule = rule_;
    rule.rng = Rng(in.seed, RngStream::routing, in.step, static_cast<uint64_t>(in.layer));
    return select_experts(in.scores, rule, in.mask, in.addresses ? in.addresses : indices(in),
                          score_bias());
  }

 private:
  static Tensor indices(const GateInput& in) {
    std::vector<int64_t> ids(static_cast<size_t>(in.scores.probabilities.dim(0)));
    std::iota(ids.begin(), ids.end(), 0);
    return Tensor::from(std::span<const int64_t>(ids), {static_cast<int64_t>(ids.size())},
                        in.scores.probabilities.device());
  }
};

}  // namespace

std::unique_ptr<GatingPolicy> make_fixed_policy(int64_t k, int64_t experts) {
  check(k >= 1 && k <= experts, "moe.gate.k is {} but moe.experts is {}: choose 1 to {}", k,
        experts, experts);
  return std::make_unique<RulePolicy>(
      SelectionRule{.kind = SelectionRule::Kind::fixed, .k_max = k});
}

std::unique_ptr<GatingPolicy> make_top1_policy(const GateConfig&, int64_t experts) {
  return make_fixed_policy(1, experts);
}

std::unique_ptr<GatingPolicy> make_top2_policy(const GateConfig&, int64_t experts) {
  return make_fixed_policy(std::min<int64_t>(2, experts), experts);
}

std::unique_ptr<GatingPolicy> make_topk_policy(const GateConfig& config, int64_t experts) {
  return make_fixed_policy(config.k, experts);
}

std::unique_ptr<GatingPolicy> make_adaptive_policy(const GateConfig& config, int64_t experts) {
  check(config.normalize == "all" || config.normalize == "pair",
        "moe.gate.normalize is '{}': all or pair", config.normalize);
  check(config.k_max >= 1, "moe.gate.k_max is {}: at least 1", config.k_max);
  return std::make_unique<RulePolicy>(SelectionRule{.kind = SelectionRule::Kind::gap,
                                                    .k_max = std::min(config.k_max, experts),
                                                    .threshold = config.threshold,
                                                    .pair_normalized = config.normalize == "pair"});
}

std::unique_ptr<GatingPolicy> make_random_one_or_two_policy(const GateConfig& config,
                                                            int64_t experts) {
  return std::make_unique<RandomOneOrTwo>(SelectionRule{.kind = SelectionRule::Kind::random_second,
                                                        .k_max = std::min<int64_t>(2, experts),
                                                        .share = config.two_expert_share});
}

std::unique_ptr<GatingPolicy> make_gating_policy(const GateConfig& config, int64_t experts) {
  return gating_policy_entry(config.policy).make(config, experts);
}

}  // namespace adagate
