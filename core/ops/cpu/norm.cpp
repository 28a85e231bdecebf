// Norms on the CPU. Work per thread: blocks of kRowBlock rows, each row read from memory once and
// then from the first-level cache. Bytes per element: forward 2 sizes, backward 3. The sums over
// rows behind dgamma and dbeta go by fixed blocks of rows, so they do not depend on the number of
// threads.
#include "core/ops/norm.h"

#include <cmath>

#include "core/ops/cpu/column_sums.h"

namespace adagate {
namespace {

template <class T>
void forward_row(const NormArgs& a, int64_t row) {
  using C = Compute<T>;
  const int64_t n = a.cols, at = row * n;
  const T* x = static_cast<const T*>(a.x) + at;
  C mean = 0, square = 0;
  if (a.mean) {
#pragma omp simd reduction(+ : mean)
    for (int64_t c = 0; c < n; ++c) mean += static_cast<C>(x[c]);
    mean /= static_cast<C>(n);
    static_cast<C*>(a.mean)[row] = mean;
  }
#pragma omp simd reduction(+ : square)
  for (int64_t c = 0; c < n; ++c) {
    C centred = static_cast<C>(x[c]) - mean;
    square += centred * centred;
  }
  const C rstd = C(1) / std::sqrt(square / static_cast<C>(n) + static_cast<C>(a.epsilon));
  static_cast<C*>(a.rstd)[row] = rstd;
  const C* gamma = static_cast<const C*>(a.gamma);
  const C* beta = static_cast<const C*>(a.beta);
  T* y = static_cast<T*>(a.y) + at;
  if (beta) {
#pragma omp simd
    for (int64_t c = 0; c < n; ++c)
      y[c] = T((static_cast<C>(x[c]) - mean) * rstd * gamma[c] + beta[c]);
  } else {
#pragma omp simd
    for (int64_t c = 0; c < n; ++c) y[c] = T(static_cast<C>(x[c]) * rstd * gamma[c]);
  }
}

// dx = rstd * (g - mean(g) - xhat * mean(g * xhat)) with g = dy * gamma; the RMS form has no
// mean(g). Adds this row's share to dgamma and dbeta.
template <class T>
void backward_row(const NormBackwardArgs& a, int64_t row, Compute<T>* dgamma, Compute<T>* dbeta) {
  using C = Compute<T>;
  const int64_t n = a.cols, at = row * n;
  const T* x = static_cast<const T*>(a.x) + at;
  const T* dy = static_cast<const T*>(a.dy) + at;
  const C* gamma = static_cast<const C*>(a.gamma);
  const C rstd = static_cast<const C*>(a.rstd)[row];
  const C mean = a.mean ? static_cast<const C*>(a.mean)[row] : C(0);
  C sum_g = 0, sum_gx = 0;
#pragma omp simd reduction(+ : sum_g, sum_gx)
  for (int64_t c = 0; c < n; ++c) {
    C xhat = (static_cast<C>(x[c]) - mean) * rstd, d = static_cast<C>(dy[c]), g = d * gamma[c];
    sum_g += g;
    sum_gx += g * xhat;
    dgamma[c] += d * xhat;
    dbeta[c] += d;
  }
  if (!a.dx) return;
  const C mean_g = a.mean ? sum_g / static_cast<C>(n) : C(0);
  const C mean_gx = sum_gx / static_cast<C>(n);
  T* dx = static_cast<T*>(a.dx) + at;
  auto gradient = [=](int64_t c) {
    C xhat = (static_cast<C>(x[c]) - mean) * rstd;
    return rstd * (static_cast<C>(dy[c]) * gamma[c] - mean_g - xhat * mean_gx);
  };
  if (a.accumulate_dx) {
#pragma omp simd
    for (int64_t c = 0; c < n; ++c) dx[c] = T(static_cast<C>(dx[c]) + gradient(c));
  } else {
#pragma omp simd
    for (int64_t c = 0; c < n; ++c) dx[c] = T(gradient(c));
  }
}

template <class T>
void backward(const NormBackwardArgs& a) {
  using C = Compute<T>;
  const int64_t blocks = row_blocks(a.rows), stride = 2 * a.cols;
  Tensor partial = Tensor::empty({blocks, stride}, dtype_of<C>());
  C* sums = partial.data<C>();
#pragma omp parallel for schedule(static)
  for (int64_t b = 0; b < blocks; ++b) {
    C* dgamma = sums + b * stride;
    std::fill_n(dgamma, stride, C(0));
    const int64_t end = std::min(a.rows, (b + 1) * kRowBlock);
    for (int64_t row = b * kRowBlock; row < end; ++row)
      backward_row<T>(a, row, dgamma, dgamma + a.cols);
  }
  finish_column_sums(sums, blocks, stride, a.cols, a.dgamma, a.dgamma_dtype, a.accumulate_dgamma);
  finish_column_sums(sums + a.cols, blocks, stride, a.cols, a.dbeta, a.dbeta_dtype,
                     a.accumulate_dbeta);
}

}  // namespace

void launch(CpuStream&, const NormArgs& a) {
  visit_floating(a.dtype, [&](auto type) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < a.rows; ++row) forward_row<decltype(type)>(a, row);
  });
}

void launch(CpuStream&, const NormBackwardArgs& a) {
  visit_floating(a.dtype, [&](auto type) { backward<decltype(type)>(a); });
}

}  // namespace adagate
