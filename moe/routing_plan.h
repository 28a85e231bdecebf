// What a gate decides for a batch: a sparse tokens x experts matrix in CSR form. Tokens may take
// any number of experts, none included (padding); buffers follow the real number of assignments.
#pragma once

#include <cstdint>
#include <vector>

#include "core/ops/routing.h"

namespace adagate {

struct RoutingPlan {
  int64_t experts = 0;
  Selection selection;  // row_start i32 [tokens + 1], expert i32 [assignments], their counts
  Tensor weight;        // [assignments] f32 (f64), differentiable

  int64_t tokens() const { return selection.row_start.numel() - 1; }
  int64_t assignments() const { return selection.expert.numel(); }
};

}  // namespace adagate
