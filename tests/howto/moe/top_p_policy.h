// As many experts as it takes to gather a share of the probability (top-p).
#pragma once

#include "moe/gating_policy.h"

namespace adagate {

// The fewest most probable experts whose probabilities sum to at least moe.gate.threshold (Huang et
// al. 2024). Throws Error unless 0 < threshold <= 1.
std::unique_ptr<GatingPolicy> make_top_p_policy(const GateConfig& config, int64_t experts);

// One expert may have the share alone; all of them may be needed.
ExpertsPerToken top_p_takes(const GateConfig& config, int64_t experts);

}  // namespace adagate
