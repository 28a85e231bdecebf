// How many parameters a model has: summed over what it is made of. Made without a store, none of
// them is allocated.
#pragma once

#include <cstdint>

#include "models/model.h"

namespace adagate {

struct ParameterCounts {
  int64_t total = 0;
  int64_t active = 0;   // used by a token that takes `experts_per_token` experts in each MoE layer
  int64_t experts = 0;  // of the total, those of experts, which expert-parallel ranks share out
};

// Of the whole model, which `model` must be: on a mesh of one rank.
ParameterCounts count_parameters(const Model& model, double experts_per_token);

}  // namespace adagate
