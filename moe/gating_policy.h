// How tokens choose experts, given the gate's probabilities. A new policy is one class and one line
// in kGatingPolicies; tests/moe/test_policies.cpp runs over that table.
#pragma once

#include <array>
#include <memory>
#include <string_view>

#include "core/ops/routing.h"
#include "moe/moe_config.h"

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

class GatingPolicy {
 public:
  virtual ~GatingPolicy() = default;
  virtual int64_t k_max() const = 0;  // most experts of one token
  // Padding tokens take none. Permuting tokens permutes the result.
  virtual Selection choose(const GateInput& in) const = 0;
};

struct GatingPolicyEntry {
  std::string_view name;
  std::string_view summary;
  std::unique_ptr<GatingPolicy> (*make)(const GateConfig& config, int64_t experts);
};

std::unique_ptr<GatingPolicy> make_fixed_policy(int64_t k, int64_t experts);
std::unique_ptr<GatingPolicy> make_top1_policy(const GateConfig&, int64_t experts);
std::unique_ptr<GatingPolicy> make_top2_policy(const GateConfig&, int64_t experts);
std::unique_ptr<GatingPolicy> make_topk_policy(const GateConfig&, int64_t experts);
std::unique_ptr<GatingPolicy> make_adaptive_policy(const GateConfig&, int64_t experts);
std::unique_ptr<GatingPolicy> make_random_one_or_two_policy(const GateConfig&, int64_t experts);

inline constexpr std::array kGatingPolicies = {
    GatingPolicyEntry{"top1", "the most probable expert", make_top1_policy},
    GatingPolicyEntry{"top2", "the two most probable experts", make_top2_policy},
    GatingPolicyEntry{"topk", "the k most probable experts", make_topk_policy},
    GatingPolicyEntry{"adaptive", "further experts while R_1 - R_r <= T", make_adaptive_policy},
    GatingPolicyEntry{"random_one_or_two", "a second expert for a random share of the tokens",
                      make_random_one_or_two_policy},
};

// Throws Error on an unknown name, listing the known ones. k beyond `experts` is an error too, but
// for top2, adaptive and random_one_or_two, which take the one expert there is.
std::unique_ptr<GatingPolicy> make_gating_policy(const GateConfig& config, int64_t experts);

}  // namespace adagate
