// Matrix products by this backend's own tiles.
#pragma once

#include "core/device/cuda/stream.h"
#include "core/ops/matmul.h"

namespace adagate::cuda {

// Any types, strides and addresses; the strides of 0 have been filled in; k may be 0.
void tiled_matmul(CudaStream& stream, const MatmulArgs& product);

}  // namespace adagate::cuda
