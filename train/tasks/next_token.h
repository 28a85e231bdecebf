// The objective of language modelling: cross-entropy of each next token, of decoders.
#pragma once

#include "train/objective.h"

namespace adagate {

void next_token_forward(Model& model, const Batch& batch, const StepContext& context);
// In nats; one root.
BatchLoss next_token_loss(Model& model, const Batch& batch, double scale,
                          const StepContext& context);
// Every token sees itself and those before it.
int64_t causal_pairs_of(const Batch& batch);

inline constexpr Objective kNextToken{
    .forward = next_token_forward, .loss = next_token_loss, .visible_pairs = causal_pairs_of};

}  // namespace adagate
