// y = x w + bias.
#pragma once

#include "core/autograd/tape.h"
#include "core/tensor/tensor.h"

namespace adagate {

// x [.., in], w [in, out], bias [out] or empty -> y [.., out] of w's type (an f32 weight on bf16
// activations, as a gate has, gives f32). Throws Error when sizes don't match.
Tensor linear(const Tensor& x, const Tensor& w, const Tensor& bias = {});

}  // namespace adagate
