// A micro-batch as the tensors that a model takes.
#pragma once

#include "data/batch.h"
#include "layers/token_rows.h"

namespace adagate {

Tensor tokens_of(const Batch& batch);   // i32 [rows * sequence]
Tensor targets_of(const Batch& batch);  // i32 [rows * sequence]
TokenRows rows_of(const Batch& batch);  // padded, with addresses and sample ids

}  // namespace adagate
