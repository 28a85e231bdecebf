// A micro-batch as the tensors that a model takes.
#pragma once

#include "core/ops/linear_cross_entropy.h"
#include "data/batch.h"
#include "layers/token_rows.h"

namespace adagate {

Tensor tokens_of(const Batch& batch, Device device = {});  // i32 [rows * sequence]
// Throws Error on a target outside of [-1, vocabulary).
LossTargets targets_of(const Batch& batch, int64_t vocabulary, Device device = {});
TokenRows rows_of(const Batch& batch, Device device = {});  // padded, with addresses, sample ids

}  // namespace adagate
