// How many parameters a model has: summed over what it is made of, of which nothing is allocated.
#pragma once

#include <cstdint>

#include "models/model_config.h"
#include "moe/moe_config.h"

namespace adagate {

struct ParameterCounts {
  int64_t total = 0;
  int64_t active = 0;   // used by a token that takes `experts_per_token` experts in each MoE layer
  int64_t experts = 0;  // of the total, those of experts, which expert-parallel ranks share out
};

// model.vocabulary must be set. Throws Error on impossible sizes.
ParameterCounts count_parameters(const ModelConfig& model, const MoeConfig& moe,
                                 double experts_per_token);

}  // namespace adagate
