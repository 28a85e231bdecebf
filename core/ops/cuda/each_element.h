// Kernels that do the same with each element of arrays, none of which looks at another.
#pragma once

#include "core/device/cuda/stream.h"
#include "core/ops/cuda/elements.h"

namespace adagate::cuda {

// f.at<kWidth>(i) does the elements i .. i + kWidth - 1. A thread takes kWidth of them at a time,
// blocks one after the other in memory: every element is read and written once.
template <int kWidth, class F>
__global__ void __launch_bounds__(256) each_element(F f, int64_t n, bool packed) {
  if (!packed) {
    for (int64_t i = global_thread(); i < n; i += grid_threads()) f.template at<1>(i);
    return;
  }
  for (int64_t i = global_thread() * kWidth; i < n; i += grid_threads() * kWidth) {
    if (i + kWidth <= n) {
      f.template at<kWidth>(i);
    } else {
      for (int64_t k = i; k < n; ++k) f.template at<1>(k);
    }
  }
}

// `packed`: all arrays begin where kWidth elements can be moved at once.
template <int kWidth, class F>
void for_each_element(CudaStream& stream, int64_t n, bool packed, const F& f) {
  if (n == 0) return;
  ADAGATE_LAUNCH((each_element<kWidth, F>), blocks_for(n, 256, kWidth), 256, 0, stream, f, n,
                 packed);
}

}  // namespace adagate::cuda
