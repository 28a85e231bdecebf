// How tokens choose experts, given the gate's probabilities. A new policy is one class and one
// entry in kGatingPolicies (moe/policy_table.h).
#pragma once

#include <memory>

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

class GatingPolicy {
 public:
  virtual ~GatingPolicy() = default;
  virtual int64_t k_max() const = 0;  // most experts of one token
  // Padding tokens take none. Permuting tokens permutes the result.
  virtual Selection choose(const GateInput& in) const = 0;
};

// The k most probable experts; throws Error unless k is 1 to `experts`.
std::unique_ptr<GatingPolicy> make_fixed_policy(int64_t k, int64_t experts);

// Throws Error on an unknown name, listing the known ones. k beyond `experts` is an error too, but
// for top2, adaptive and random_one_or_two, which take the one expert there is.
std::unique_ptr<GatingPolicy> make_gating_policy(const GateConfig& config, int64_t experts);

}  // namespace adagate
