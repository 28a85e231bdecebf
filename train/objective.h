// What a training asks of a model and a micro-batch: the entry of a task that one optimizer step
// works with.
#pragma once

#include <cstdint>
#include <vector>

#include "core/tensor/tensor.h"
#include "data/batch.h"
#include "layers/step_context.h"
#include "models/model.h"

namespace adagate {

// A micro-batch's share of the loss of a step.
struct BatchLoss {
  std::vector<Tensor> roots;  // [1] each, on the tape: scale * sum in parts, each of gradient 1
  Tensor sum;                 // f64 [1], on the model's device: over the valid targets
};

// Functions of a model that the same task has made. A micro-batch may have no rows.
struct Objective {
  // The model's pass without its loss, not recorded: what the balance losses count beforehand.
  void (*forward)(Model& model, const Batch& batch, const StepContext& context);
  // Recorded where a tape records. `context` outlives the backward pass.
  BatchLoss (*loss)(Model& model, const Batch& batch, double scale, const StepContext& context);
  // (query, key) pairs that attention computes, for the count of floating-point operations.
  int64_t (*visible_pairs)(const Batch& batch);
};

}  // namespace adagate
