// Attention row by row.
#pragma once

#include "core/device/cuda/stream.h"
#include "core/ops/attention.h"

namespace adagate::cuda {

// For few queries, and for heads of any size.
void attend_row_by_row(CudaStream& stream, const AttentionArgs& args);
void attend_backward_row_by_row(CudaStream& stream, const AttentionBackwardArgs& args);

// delta [batch, heads, queries] = the inner products of doutput's and output's rows.
void attention_deltas(CudaStream& stream, const AttentionBackwardArgs& args, void* deltas);

}  // namespace adagate::cuda
