// What a gate decides for a batch: a sparse tokens x experts matrix in CSR form. Tokens may take
// any number of experts, none included (padding); buffers follow the number of assignments, or have
// room for the most there can be where the host does not know it (core/ops/routing.h).
#pragma once

#include <cstdint>
#include <vector>

#include "core/ops/routing.h"

namespace adagate {

struct RoutingPlan {
  int64_t experts = 0;
  Selection selection;
  Tensor weight;  // [rows] f32 (f64), differentiable

  int64_t tokens() const { return selection.row_start.numel() - 1; }
  int64_t rows() const { return selection.expert.numel(); }  // assignments, or room for them
};

}  // namespace adagate
