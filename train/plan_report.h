// What a run would take, before it is started.
#pragma once

#include <string>

#include "models/parameter_counts.h"
#include "train/config/run_config.h"
#include "train/task.h"

namespace adagate {

// Bytes of one rank.
struct MemoryEstimate {
  int64_t parameters = 0;   // values, gradients, moments, bf16 copies
  int64_t activations = 0;  // at most about: what a micro-batch keeps for backward, and its logits
};

MemoryEstimate estimate_memory(const RunConfig& config, const Task& task, int ranks);

// Of the whole model; active: with the experts that a token takes as far as the policy tells
// beforehand.
ParameterCounts planned_parameters(const RunConfig& config);

// Floating-point operations of one step over all ranks, as far as the policy tells beforehand.
double step_flops(const RunConfig& config);

// Parameter counts (total, active), memory per rank, the mesh and the work of a step, as text.
// config.model.vocabulary must be set.
std::string plan_report(const RunConfig& config, int ranks);

}  // namespace adagate
