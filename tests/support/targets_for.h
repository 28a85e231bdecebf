// Targets of a loss from a tensor.
#pragma once

#include "core/ops/linear_cross_entropy.h"

namespace adagate::test {

// targets i32 with -1 for rows that don't count; w [V, D].
inline LossTargets targets_for(const Tensor& w, const Tensor& targets) {
  return loss_targets(targets.to_host<int32_t>(), w.dim(0), targets.device());
}

}  // namespace adagate::test
