// Attention row by row, on the CPU. Work per thread is one (row, head); the keys and values that it
// sees are read once, as they stand, so this runs at the speed of memory.
#include "core/ops/cpu/attention_rows.h"

#include <cmath>

#include "core/base/threads.h"
#include "core/ops/cpu/attention_tiles.h"

namespace adagate {
namespace {

constexpr int64_t kBlockwise = 8;  // queries from which on packing keys and values pays

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

template <class T, class C>
void mix_row(const HeadRows<const T>& v, int64_t head_dim, int64_t count, const C* weights,
             C factor, T* y) {
  constexpr int64_t L = kLanes<C>;
  const int64_t stride = v.stride;
  int64_t d = 0;
  for (; d + 4 * L <= head_dim; d += 4 * L)
    mix<4>(v.first + d, stride, count, weights, factor, y + d);
  for (; d + L <= head_dim; d += L) mix<1>(v.first + d, stride, count, weights, factor, y + d);
  for (; d < head_dim; ++d) {
    C one = 0;
    for (int64_t n = 0; n < count; ++n) one += weights[n] * static_cast<C>(v.row(n)[d]);
    y[d] = T(factor * one);
  }
}

// One row of one head of a sample. scratch: C [head_dim + keys], both rounded up to vectors.
template <class T>
void attend(const AttentionUnit<T>& unit, int64_t head, int64_t row, Compute<T>* scratch) {
  using C = Compute<T>;
  const AttentionArgs& a = unit.args;
  T* y = unit.template rows<T>(a.output, head).row(row);
  if (row >= unit.queries) {
    std::fill_n(y, a.head_dim, T{});
    return;
  }
  C *query = scratch, *weights = scratch + round_up(a.head_dim, kLanes<C>);
  pack_row(unit.query_rows(head), row, a.head_dim, a.head_dim, unit.query_rotary(), query);
  const int64_t seen = unit.key_limit(row + 1);
  const auto keys = unit.keys();
  C largest = -std::numeric_limits<C>::infinity();
  for (int64_t n = 0; n < seen; ++n) {
    weights[n] = row_product(query, keys.row(n), a.head_dim) * static_cast<C>(a.scale * kLog2E);
    largest = std::max(largest, weights[n]);
  }
  const C sum = sum_of_vectors<C>(seen, [=](int64_t n, auto lanes) {
    const auto weight = lanes.only(exp2(lanes.load(weights + n) - largest));
    lanes.store(weights + n, weight);
    return weight;
  });
  mix_row<T, C>(unit.values(), a.head_dim, seen, weights, C(1) / sum, y);
}

template <class T>
void attend_each(const AttentionArgs& a) {
  using C = Compute<T>;
  const int64_t elements = round_up(a.head_dim, kLanes<C>) + round_up(a.keys, kLanes<C>);
  const int64_t group = a.heads / a.kv_heads, rows = a.batch * a.queries * a.heads;
  const int threads = threads_for(2 * rows * a.keys * a.head_dim);
  const Scratch<C> scratch(threads, elements);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t head = i % a.heads, row = i / a.heads % a.queries;
    const int64_t sample = i / a.heads / a.queries;
    const AttentionUnit<T> unit(a, sample * a.kv_heads + head / group);
    attend(unit, head, row, scratch.of_this_thread().take(elements));
  }
}

}  // namespace

bool goes_row_by_row(const AttentionArgs& args) {
  return args.queries < kBlockwise && !args.lse && !args.addresses;
}

void attend_row_by_row(const AttentionArgs& args) {
  visit_floating(args.dtype, [&](auto type) { attend_each<decltype(type)>(args); });
}

}  // namespace adagate
