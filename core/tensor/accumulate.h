// to += value, both of the same size: the one sum that the tape itself needs.
#pragma once

#include "core/tensor/tensor.h"

namespace adagate {

// Element types may differ (an f32 gradient of a bf16 tensor).
void accumulate_into(const Tensor& to, const Tensor& value);

}  // namespace adagate
