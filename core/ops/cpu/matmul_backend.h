// The libraries behind the matrix product, each in one source file of its own.
#pragma once

#include "core/ops/matmul.h"

namespace adagate::cpu {

// Both want m, n, k > 0 and leading dimensions filled in.

// False when oneDNN isn't built in or has no fast path for these types on this processor.
bool onednn_matmul(const MatmulArgs& p);

// All operands of type f32, or all f64; no bias.
void eigen_matmul(const MatmulArgs& p);

}  // namespace adagate::cpu
