// Floating-point operations of the model, counted from the products that really happen: a
// multiply-add is two, the backward pass costs twice the forward, recomputation is not counted.
#pragma once

#include <cstdint>

#include "models/model_config.h"
#include "moe/moe_config.h"

namespace adagate {

struct FlopCounts {
  double per_token = 0;  // forward, everything but experts: projections, dense layers, gate, head
  double per_token_pair = 0;  // forward, per (query, visible key) pair: scores and weighted sum
  double per_assignment = 0;  // forward, one token in one expert of one layer
};

FlopCounts count_flops(const ModelConfig& model, const MoeConfig& moe);

// Forward and backward of `samples` samples of `length` tokens (causal) with `assignments`
// token-expert pairs summed over all MoE layers.
double training_flops(const FlopCounts& counts, int64_t tokens, int64_t visible_pairs,
                      int64_t assignments);

// Visible (query, key) pairs of a causal sample of `length` tokens.
constexpr int64_t causal_pairs(int64_t length) {
  return length * (length + 1) / 2;
}

}  // namespace adagate
