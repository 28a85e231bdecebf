// The gating policies by name, one entry each. From it the configuration takes its words, help and
// checks, the plan report what a token costs, the gate its policy.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace adagate {

struct GateConfig;   // moe/moe_config.h
class GatingPolicy;  // moe/gating_policy.h

// Experts that a token takes in one layer, as far as policy and settings tell beforehand.
struct ExpertsPerToken {
  double expected = 1;  // the least, where it depends on the tokens
  int64_t least = 1, most = 1;
};

struct GatingPolicyEntry {
  std::string_view name;
  std::string_view help;
  // Throws Error on settings that fit no layer of so many experts.
  std::unique_ptr<GatingPolicy> (*make)(const GateConfig& config, int64_t experts);
  ExpertsPerToken (*takes)(const GateConfig& config, int64_t experts);
  // Why a run with these settings must not start, in the words of the configuration; empty: it may.
  std::string (*problem)(const GateConfig& config, int64_t experts) = nullptr;
  // Behind the name: the setting under which no token takes a single expert, if it is a setting.
  std::string_view never_single_with = {};
  std::string_view plan_note = {};  // of the plan report, behind the expected number
};

// Those of the table.
std::unique_ptr<GatingPolicy> make_top1_policy(const GateConfig&, int64_t experts);
std::unique_ptr<GatingPolicy> make_top2_policy(const GateConfig&, int64_t experts);
std::unique_ptr<GatingPolicy> make_topk_policy(const GateConfig&, int64_t experts);
std::unique_ptr<GatingPolicy> make_adaptive_policy(const GateConfig&, int64_t experts);
std::unique_ptr<GatingPolicy> make_random_one_or_two_policy(const GateConfig&, int64_t experts);
ExpertsPerToken top1_takes(const GateConfig&, int64_t experts);
ExpertsPerToken top2_takes(const GateConfig&, int64_t experts);
ExpertsPerToken topk_takes(const GateConfig&, int64_t experts);
ExpertsPerToken adaptive_takes(const GateConfig&, int64_t experts);
ExpertsPerToken random_one_or_two_takes(const GateConfig&, int64_t experts);
std::string topk_problem(const GateConfig&, int64_t experts);
std::string adaptive_problem(const GateConfig&, int64_t experts);
std::string needs_two_experts(const GateConfig&, int64_t experts);

// A new policy is one entry here; tests/moe/test_policies.cpp runs over the table.
inline constexpr std::array kGatingPolicies = {
    GatingPolicyEntry{.name = "top1",
                      .help = "the most probable expert",
                      .make = make_top1_policy,
                      .takes = top1_takes},
    GatingPolicyEntry{.name = "top2",
                      .help = "the two most probable experts",
                      .make = make_top2_policy,
                      .takes = top2_takes,
                      .problem = needs_two_experts},
    GatingPolicyEntry{.name = "topk",
                      .help = "the k most probable experts",
                      .make = make_topk_policy,
                      .takes = topk_takes,
                      .problem = topk_problem},
    GatingPolicyEntry{.name = "adaptive",
                      .help = "further experts join while they are nearly as probable as the first",
                      .make = make_adaptive_policy,
                      .takes = adaptive_takes,
                      .problem = adaptive_problem,
                      .never_single_with = "a threshold of 1 or more",
                      .plan_note = "more where the gate hesitates"},
    GatingPolicyEntry{.name = "random_one_or_two",
                      .help = "a second expert for a random share of the tokens (a control at "
                              "equal compute)",
                      .make = make_random_one_or_two_policy,
                      .takes = random_one_or_two_takes,
                      .problem = needs_two_experts,
                      .never_single_with = "moe.gate.two_expert_share 1"},
};

// Throws Error on an unknown name, listing the known ones.
const GatingPolicyEntry& gating_policy_entry(std::string_view name);

}  // namespace adagate
