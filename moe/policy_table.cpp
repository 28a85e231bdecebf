#include "moe/policy_table.h"

#include "core/base/named.h"
#include "moe/moe_config.h"

namespace adagate {

ExpertsPerToken top1_takes(const GateConfig&, int64_t) {
  return {.expected = 1, .least = 1, .most = 1};
}

ExpertsPerToken top2_takes(const GateConfig&, int64_t) {
  return {.expected = 2, .least = 2, .most = 2};
}

ExpertsPerToken topk_takes(const GateConfig& gate, int64_t) {
  return {.expected = static_cast<double>(gate.k), .least = gate.k, .most = gate.k};
}

// No gap of probabilities is above 1; an untrained gate hesitates everywhere.
ExpertsPerToken adaptive_takes(const GateConfig& gate, int64_t) {
  int64_t least = gate.threshold >= 1 ? gate.k_max : 1;
  return {.expected = static_cast<double>(least), .least = least, .most = gate.k_max};
}

ExpertsPerToken random_one_or_two_takes(const GateConfig& gate, int64_t) {
  double share = gate.two_expert_share;
  return {.expected = 1 + share, .least = share >= 1 ? 2 : 1, .most = 2};
}

std::string topk_problem(const GateConfig& gate, int64_t experts) {
  if (gate.k <= experts) return "";
  return fmt::format(
      "moe.gate.k is {}, but moe.experts is {}: a token cannot choose more experts than there are",
      gate.k, experts);
}

std::string adaptive_problem(const GateConfig& gate, int64_t experts) {
  if (gate.k_max <= experts) return "";
  return fmt::format(
      "moe.gate.k_max is {}, but moe.experts is {}: a token cannot choose more experts than there "
      "are",
      gate.k_max, experts);
}

std::string needs_two_experts(const GateConfig& gate, int64_t experts) {
  if (experts >= 2) return "";
  return fmt::format("moe.gate.policy is {}, but moe.experts is {}: it needs at least 2 experts",
                     gate.policy, experts);
}

const GatingPolicyEntry& gating_policy_entry(std::string_view name) {
  return entry_named("moe.gate.policy", kGatingPolicies, name);
}

}  // namespace adagate
