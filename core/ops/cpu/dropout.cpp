// Dropout with bias and residual on the CPU. Work per thread: whole rows; bytes per element: x,
// residual, y once each (3 sizes), backward dy and dx (2). One Philox call keys a row, the draw of
// an element is a 32-bit mix that vectorises. dbias goes by fixed blocks of rows.
#include "core/ops/dropout.h"

#include <array>

#include "core/ops/cpu/column_sums.h"

namespace adagate {
namespace {

// Factors of one row: 0 or scale each.
inline void row_factors(DropoutMask mask, uint32_t key, int64_t cols, float* factors) {
#pragma omp simd
  for (int64_t c = 0; c < cols; ++c) factors[c] = mask.factor(key, static_cast<uint32_t>(c));
}

constexpr int64_t kTile = 512;  // columns handled at a time; their factors stay in the L1 cache

// The factors where nothing is dropped.
constexpr auto kOnes = [] {
  std::array<float, kTile> ones{};
  ones.fill(1.0f);
  return ones;
}();

template <class T>
void forward_row(const DropoutArgs& a, int64_t row) {
  using C = Compute<T>;
  const uint32_t key = a.row_ids ? a.rng.row_key(static_cast<uint64_t>(a.row_ids[row])) : 0;
  float drawn[kTile];
  const float* factors = a.row_ids ? drawn : kOnes.data();
  for (int64_t begin = 0; begin < a.cols; begin += kTile) {
    const int64_t n = std::min(kTile, a.cols - begin), at = row * a.cols + begin;
    const T* x = static_cast<const T*>(a.x) + at;
    T* y = static_cast<T*>(a.y) + at;
    if (a.row_ids) {
      row_factors(a.mask, key + static_cast<uint32_t>(begin) * Rng::kRowStride, n, drawn);
    }
    const T* bias = a.bias ? static_cast<const T*>(a.bias) + begin : nullptr;
    const T* residual = a.residual ? static_cast<const T*>(a.residual) + at : nullptr;
    if (bias && residual) {
#pragma omp simd
      for (int64_t c = 0; c < n; ++c)
        y[c] = T(static_cast<C>(residual[c]) +
                 static_cast<C>(factors[c]) * (static_cast<C>(x[c]) + static_cast<C>(bias[c])));
    } else if (residual) {
#pragma omp simd
      for (int64_t c = 0; c < n; ++c)
        y[c] = T(static_cast<C>(residual[c]) + static_cast<C>(factors[c]) * static_cast<C>(x[c]));
    } else {
#pragma omp simd
      for (int64_t c = 0; c < n; ++c) y[c] = T(static_cast<C>(factors[c]) * static_cast<C>(x[c]));
    }
  }
}

template <class T>
void backward_row(const DropoutBackwardArgs& a, int64_t row, Compute<T>* dbias) {
  using C = Compute<T>;
  const uint32_t key = a.row_ids ? a.rng.row_key(static_cast<uint64_t>(a.row_ids[row])) : 0;
  float drawn[kTile];
  const float* factors = a.row_ids ? drawn : kOnes.data();
  for (int64_t begin = 0; begin < a.cols; begin += kTile) {
    const int64_t n = std::min(kTile, a.cols - begin), at = row * a.cols + begin;
    const T* dy = static_cast<const T*>(a.dy) + at;
    if (a.row_ids) {
      row_factors(a.mask, key + static_cast<uint32_t>(begin) * Rng::kRowStride, n, drawn);
    }
    if (dbias) {
#pragma omp simd
      for (int64_t c = 0; c < n; ++c)
        dbias[begin + c] += static_cast<C>(factors[c]) * static_cast<C>(dy[c]);
    }
    if (!a.dx) continue;
    T* dx = static_cast<T*>(a.dx) + at;
    if (a.accumulate_dx) {
#pragma omp simd
      for (int64_t c = 0; c < n; ++c)
        dx[c] = T(static_cast<C>(dx[c]) + static_cast<C>(factors[c]) * static_cast<C>(dy[c]));
    } else {
#pragma omp simd
      for (int64_t c = 0; c < n; ++c) dx[c] = T(static_cast<C>(factors[c]) * static_cast<C>(dy[c]));
    }
  }
}

template <class T>
void backward(const DropoutBackwardArgs& a) {
  using C = Compute<T>;
  const int64_t blocks = row_blocks(a.rows);
  Tensor partial;
  if (a.dbias) partial = Tensor::empty({blocks, a.cols}, dtype_of<C>());
  C* sums = partial.data<C>();
#pragma omp parallel for schedule(static)
  for (int64_t b = 0; b < blocks; ++b) {
    C* dbias = sums ? sums + b * a.cols : nullptr;
    if (dbias) std::fill_n(dbias, a.cols, C(0));
    const int64_t end = std::min(a.rows, (b + 1) * kRowBlock);
    for (int64_t row = b * kRowBlock; row < end; ++row) backward_row<T>(a, row, dbias);
  }
  finish_column_sums(sums, blocks, a.cols, a.cols, a.dbias, a.dbias_dtype, a.accumulate_dbias);
}

}  // namespace

void launch(CpuStream&, const DropoutArgs& a) {
  visit_floating(a.dtype, [&](auto type) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < a.rows; ++row) forward_row<decltype(type)>(a, row);
  });
}

void launch(CpuStream&, const DropoutBackwardArgs& a) {
  visit_floating(a.dtype, [&](auto type) { backward<decltype(type)>(a); });
}

}  // namespace adagate
