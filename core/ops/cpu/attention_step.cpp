// Attention of a few new rows against cached keys and values, on the CPU. Work per thread: one
// (row, head); the keys and values it sees are read once, one size each per element, so this runs
// at the speed of memory.
#include <cmath>
#include <vector>

#include "core/ops/cpu/attention_tiles.h"

namespace adagate {
namespace {

// Appends the rotated keys and the values of the new rows.
template <class T>
void append(const AttentionStepArgs& a) {
  using C = Compute<T>;
  const int64_t stride = (a.heads + 2 * a.kv_heads) * a.head_dim;
  const int64_t cols = a.kv_heads * a.head_dim, half = a.head_dim / 2;
  RotaryRows<C> rotary{static_cast<const C*>(a.cosines), static_cast<const C*>(a.sines)};
  if (rotary.cosines) {  // positions start at a.start
    rotary.cosines += a.start * half;
    rotary.sines += a.start * half;
  }
  std::vector<C> row(static_cast<size_t>(a.head_dim));
  for (int64_t h = 0; h < a.kv_heads; ++h) {
    const T* k = static_cast<const T*>(a.qkv) + (a.heads + h) * a.head_dim;
    const T* v = k + cols;
    T* to_k = static_cast<T*>(a.k) + a.start * cols + h * a.head_dim;
    T* to_v = static_cast<T*>(a.v) + a.start * cols + h * a.head_dim;
    for (int64_t t = 0; t < a.rows; ++t) {
      pack_row(HeadRows<const T>{k, stride}, t, a.head_dim, a.head_dim, rotary, row.data());
      for (int64_t i = 0; i < a.head_dim; ++i) to_k[t * cols + i] = T(row[static_cast<size_t>(i)]);
      std::copy_n(v + t * stride, a.head_dim, to_v + t * cols);
    }
  }
}

template <class T>
void attend(const AttentionStepArgs& a, int64_t row, int64_t head) {
  using C = Compute<T>;
  const int64_t stride = (a.heads + 2 * a.kv_heads) * a.head_dim;
  const int64_t cols = a.kv_heads * a.head_dim, half = a.head_dim / 2;
  const int64_t seen = a.causal ? a.start + row + 1 : a.start + a.rows;
  const int64_t column = head / (a.heads / a.kv_heads) * a.head_dim;
  RotaryRows<C> rotary{static_cast<const C*>(a.cosines), static_cast<const C*>(a.sines)};
  if (rotary.cosines) {
    rotary.cosines += a.start * half;
    rotary.sines += a.start * half;
  }
  std::vector<C> q(static_cast<size_t>(a.head_dim)), scores(static_cast<size_t>(seen));
  pack_row(HeadRows<const T>{static_cast<const T*>(a.qkv) + head * a.head_dim, stride}, row,
           a.head_dim, a.head_dim, rotary, q.data());
  C largest = -std::numeric_limits<C>::infinity(), sum = 0;
  for (int64_t n = 0; n < seen; ++n) {
    const T* k = static_cast<const T*>(a.k) + n * cols + column;
    const C* query = q.data();
    C score = 0;
#pragma omp simd reduction(+ : score)
    for (int64_t i = 0; i < a.head_dim; ++i) score += query[i] * static_cast<C>(k[i]);
    score *= static_cast<C>(a.scale);
    scores[static_cast<size_t>(n)] = score;
    largest = std::max(largest, score);
  }
  std::vector<C> mixed(static_cast<size_t>(a.head_dim), C(0));
  C* y = mixed.data();
  for (int64_t n = 0; n < seen; ++n) {
    const C weight = std::exp(scores[static_cast<size_t>(n)] - largest);
    const T* v = static_cast<const T*>(a.v) + n * cols + column;
    sum += weight;
#pragma omp simd
    for (int64_t i = 0; i < a.head_dim; ++i) y[i] += weight * static_cast<C>(v[i]);
  }
  T* output = static_cast<T*>(a.output) + row * a.heads * a.head_dim + head * a.head_dim;
  for (int64_t i = 0; i < a.head_dim; ++i) output[i] = T(y[i] / sum);
}

}  // namespace

void launch(CpuStream&, const AttentionStepArgs& a) {
  visit_floating(a.dtype, [&](auto type) {
    using T = decltype(type);
    append<T>(a);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < a.rows * a.heads; ++i) attend<T>(a, i / a.heads, i % a.heads);
  });
}

}  // namespace adagate
