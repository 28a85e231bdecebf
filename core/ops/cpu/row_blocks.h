// Sums over rows whose result does not depend on the number of threads: fixed blocks of kRowBlock
// rows are summed apart, then the blocks in order.
#pragma once

#include <algorithm>

#include "core/tensor/tensor.h"

namespace adagate {

constexpr int64_t kRowBlock = 32;

inline int64_t row_blocks(int64_t rows) {
  return (rows + kRowBlock - 1) / kRowBlock;
}

// out[c] (+)= sum over blocks b of partial[b * stride + c]; `out` has any floating type.
template <class C>
void finish_column_sums(const C* partial, int64_t blocks, int64_t stride, int64_t cols, void* out,
                        DType out_dtype, bool accumulate) {
  if (!out) return;
  constexpr int64_t kColumns = 64;
  visit_floating(out_dtype, [&](auto type) {
    using Out = decltype(type);
    auto* to = static_cast<Out*>(out);
#pragma omp parallel for schedule(static) if (blocks * cols > (1 << 14))
    for (int64_t begin = 0; begin < cols; begin += kColumns) {
      int64_t n = std::min(kColumns, cols - begin);
      C sum[kColumns] = {};
      for (int64_t b = 0; b < blocks; ++b) {
        const C* row = partial + b * stride + begin;
#pragma omp simd
        for (int64_t c = 0; c < n; ++c) sum[c] += row[c];
      }
      for (int64_t c = 0; c < n; ++c) {
        to[begin + c] = Out(accumulate ? static_cast<C>(to[begin + c]) + sum[c] : sum[c]);
      }
    }
  });
}

}  // namespace adagate
