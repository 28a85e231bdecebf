// Norms on the CPU. Work per thread: blocks of kRowBlock rows, each row read from memory once and
// then from the first-level cache. Bytes per element: forward 2 sizes, backward 3. The sums over
// rows behind dgamma and dbeta go by fixed blocks of rows, so they do not depend on the number of
// threads.
#include "core/ops/norm.h"

#include <cmath>

#include "core/base/threads.h"
#include "core/ops/cpu/row_blocks.h"
#include "core/ops/cpu/vector_functions.h"

namespace adagate {
namespace {

template <class T>
void forward_row(const NormArgs& a, int64_t row) {
  using C = Compute<T>;
  const int64_t n = a.cols, at = row * n;
  const T* x = static_cast<const T*>(a.x) + at;
  C mean = 0;
  if (a.mean) {
    mean = sum_of_vectors<C>(n, [=](int64_t c, auto lanes) { return lanes.load(x + c); }) /
           static_cast<C>(n);
    static_cast<C*>(a.mean)[row] = mean;
  }
  const C square = sum_of_vectors<C>(n, [=](int64_t c, auto lanes) {
    const auto centred = lanes.only(lanes.load(x + c) - mean);
    return centred * centred;
  });
  const C rstd = C(1) / std::sqrt(square / static_cast<C>(n) + static_cast<C>(a.epsilon));
  static_cast<C*>(a.rstd)[row] = rstd;
  const C* gamma = static_cast<const C*>(a.gamma);
  const C* beta = static_cast<const C*>(a.beta);
  T* y = static_cast<T*>(a.y) + at;
  for_each_vector<C>(n, [=](int64_t c, auto lanes) {
    auto value = (lanes.load(x + c) - mean) * rstd * lanes.load(gamma + c);
    if (beta) value += lanes.load(beta + c);
    lanes.store(y + c, value);
  });
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
  Vec<C> sums{}, more{};  // of g and of g * xhat
  for_each_vector<C>(n, [=, &sums, &more](int64_t c, auto lanes) {
    const auto d = lanes.load(dy + c), xhat = (lanes.load(x + c) - mean) * rstd;
    const auto g = d * lanes.load(gamma + c);
    sums += g;
    more += g * xhat;
    lanes.store(dgamma + c, lanes.load(dgamma + c) + d * xhat);
    lanes.store(dbeta + c, lanes.load(dbeta + c) + d);
  });
  if (!a.dx) return;
  const C mean_g = a.mean ? sum_lanes<C>(sums) / static_cast<C>(n) : C(0);
  const C mean_gx = sum_lanes<C>(more) / static_cast<C>(n);
  T* dx = static_cast<T*>(a.dx) + at;
  const bool accumulate = a.accumulate_dx;
  for_each_vector<C>(n, [=](int64_t c, auto lanes) {
    const auto xhat = (lanes.load(x + c) - mean) * rstd;
    auto value = rstd * (lanes.load(dy + c) * lanes.load(gamma + c) - mean_g - xhat * mean_gx);
    if (accumulate) value += lanes.load(dx + c);
    lanes.store(dx + c, value);
  });
}

template <class T>
void backward(const NormBackwardArgs& a) {
  using C = Compute<T>;
  const int64_t blocks = row_blocks(a.rows), stride = 2 * a.cols;
  Tensor partial = Tensor::empty({blocks, stride}, dtype_of<C>());
  C* sums = partial.data<C>();
#pragma omp parallel for schedule(static) num_threads(threads_for(a.rows* a.cols))
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
#pragma omp parallel for schedule(static) num_threads(threads_for(a.rows* a.cols))
    for (int64_t row = 0; row < a.rows; ++row) forward_row<decltype(type)>(a, row);
  });
}

void launch(CpuStream&, const NormBackwardArgs& a) {
  visit_floating(a.dtype, [&](auto type) { backward<decltype(type)>(a); });
}

}  // namespace adagate
