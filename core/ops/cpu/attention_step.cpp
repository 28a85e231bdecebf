// Attention of new rows against cached keys and values, on the CPU. A few rows: work per thread is
// one (row, head); the keys and values it sees are read once, so this runs at the speed of memory.
// Many rows (a prompt) go blockwise like training, from the cache.
#include <cmath>

#include "core/base/threads.h"
#include "core/device/cpu_buffer.h"
#include "core/ops/cpu/attention_tiles.h"

namespace adagate {
namespace {

constexpr int64_t kBlockwise = 8;  // rows from which on packing the cache pays

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
  const CpuBuffer row(static_cast<size_t>(a.head_dim) * sizeof(C));
  for (int64_t h = 0; h < a.kv_heads; ++h) {
    const T* k = static_cast<const T*>(a.qkv) + (a.heads + h) * a.head_dim;
    const T* v = k + cols;
    T* to_k = static_cast<T*>(a.k) + a.start * cols + h * a.head_dim;
    T* to_v = static_cast<T*>(a.v) + a.start * cols + h * a.head_dim;
    for (int64_t t = 0; t < a.rows; ++t) {
      pack_row(HeadRows<const T>{k, stride}, t, a.head_dim, a.head_dim, rotary, row.as<C>());
      for_each_vector<C>(a.head_dim, [&](int64_t i, auto lanes) {
        lanes.store(to_k + t * cols + i, lanes.load(row.as<C>() + i));
      });
      std::copy_n(v + t * stride, a.head_dim, to_v + t * cols);
    }
  }
}

// y = factor * sum over n of weights[n] * v[n * stride], for kVectors vectors that stay in
// registers.
template <int kVectors, class T, class C>
inline void mix(const T* v, int64_t stride, int64_t count, const C* weights, C factor, T* y) {
  Vec<C> sum[kVectors] = {};
  for (int64_t n = 0; n < count; ++n, v += stride)
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) sum[j] += weights[n] * load_any(v + j * kLanes<C>);
  for (int j = 0; j < kVectors; ++j) store_any(y + j * kLanes<C>, factor * sum[j]);
}

// One (row, head). scratch: C [head_dim + keys], both rounded up to vectors.
template <class T>
void attend(const AttentionStepArgs& a, int64_t row, int64_t head, Compute<T>* scratch) {
  using C = Compute<T>;
  constexpr int64_t L = kLanes<C>;
  const int64_t stride = (a.heads + 2 * a.kv_heads) * a.head_dim;
  const int64_t cols = a.kv_heads * a.head_dim, half = a.head_dim / 2;
  const int64_t seen = a.causal ? a.start + row + 1 : a.start + a.rows;
  const int64_t column = head / (a.heads / a.kv_heads) * a.head_dim;
  RotaryRows<C> rotary{static_cast<const C*>(a.cosines), static_cast<const C*>(a.sines)};
  if (rotary.cosines) {
    rotary.cosines += a.start * half;
    rotary.sines += a.start * half;
  }
  C *query = scratch, *weights = scratch + round_up(a.head_dim, L);
  pack_row(HeadRows<const T>{static_cast<const T*>(a.qkv) + head * a.head_dim, stride}, row,
           a.head_dim, a.head_dim, rotary, query);
  const T* k = static_cast<const T*>(a.k) + column;
  C largest = -std::numeric_limits<C>::infinity();
  for (int64_t n = 0; n < seen; ++n) {
    weights[n] = row_product(query, k + n * cols, a.head_dim) * static_cast<C>(a.scale * kLog2E);
    largest = std::max(largest, weights[n]);
  }
  const C sum = sum_of_vectors<C>(seen, [=](int64_t n, auto lanes) {
    const auto weight = lanes.only(exp2(lanes.load(weights + n) - largest));
    lanes.store(weights + n, weight);
    return weight;
  });
  const T* v = static_cast<const T*>(a.v) + column;
  T* y = static_cast<T*>(a.output) + row * a.heads * a.head_dim + head * a.head_dim;
  const C factor = C(1) / sum;
  int64_t d = 0;
  for (; d + 4 * L <= a.head_dim; d += 4 * L) mix<4>(v + d, cols, seen, weights, factor, y + d);
  for (; d + L <= a.head_dim; d += L) mix<1>(v + d, cols, seen, weights, factor, y + d);
  for (; d < a.head_dim; ++d) {
    C one = 0;
    for (int64_t n = 0; n < seen; ++n) one += weights[n] * static_cast<C>(v[n * cols + d]);
    y[d] = T(factor * one);
  }
}

template <class T>
void attend_each(const AttentionStepArgs& a) {
  using C = Compute<T>;
  const int64_t elements = round_up(a.head_dim, kLanes<C>) + round_up(a.start + a.rows, kLanes<C>);
  const int threads = threads_for(2 * a.rows * a.heads * (a.start + a.rows) * a.head_dim);
  const Scratch<C> scratch(threads, elements);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t i = 0; i < a.rows * a.heads; ++i)
    attend<T>(a, i / a.heads, i % a.heads, scratch.of_this_thread().take(elements));
}

}  // namespace

void launch(CpuStream& stream, const AttentionStepArgs& a) {
  visit_floating(a.dtype, [&](auto type) {
    append<decltype(type)>(a);
    if (a.rows < kBlockwise) attend_each<decltype(type)>(a);
  });
  if (a.rows < kBlockwise) return;
  launch(stream, AttentionArgs{.qkv = a.qkv,
                               .output = a.output,
                               .lse = nullptr,
                               .lengths = nullptr,
                               .row_ids = nullptr,
                               .cosines = a.cosines,
                               .sines = a.sines,
                               .batch = 1,
                               .sequence = a.rows,
                               .heads = a.heads,
                               .kv_heads = a.kv_heads,
                               .head_dim = a.head_dim,
                               .causal = a.causal,
                               .scale = a.scale,
                               .rng = {},
                               .mask = {},
                               .dtype = a.dtype,
                               .cached_keys = a.k,
                               .cached_values = a.v,
                               .start = a.start});
}

}  // namespace adagate
