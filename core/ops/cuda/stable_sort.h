// Sorting by small integers.
#pragma once

#include "core/device/cuda/stream.h"

namespace adagate::cuda {

// sorted[i] = keys[order[i]] by rising key, equal keys in their order before; all of [n], n below
// 2^31. Keys outside [0, end) count as `end` and come last.
void sort_stably(CudaStream& stream, const int32_t* keys, int64_t n, int32_t end, int32_t* sorted,
                 int32_t* order);

}  // namespace adagate::cuda
