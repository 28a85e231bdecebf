// Attention of few queries (generation), at the speed of memory: a block has one (row, head) and
// kSpan of the keys, so that one sequence fills the GPU, too; a second kernel merges the spans in
// their order. How keys are cut depends on their number alone. Eight lanes make a score; then the
// threads share out the columns of the output and, where these are few, the keys.
#include <algorithm>

#include "core/ops/cuda/attention_rows.h"
#include "core/ops/cuda/attention_units.h"
#include "core/ops/cuda/reduce.h"

namespace adagate::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kSpan = 512;  // keys of a block
constexpr int kScoreLanes = 8;

// One row of one head of a sample.
struct RowPlace {
  int64_t sample, head;
  int row;

  __device__ RowPlace(const AttentionArgs& a, int64_t i)
      : sample(i / a.heads / a.queries),
        head(i % a.heads),
        row(static_cast<int>(i / a.heads % a.queries)) {}
  // Of what is kept as [batch, heads, queries].
  __device__ int64_t statistic(const AttentionArgs& a) const {
    return (sample * a.heads + head) * a.queries + row;
  }
};

// scores[n] = factor * (row . rows[first + n]) for n < count, by the whole block; `row` stands in
// shared memory, the others turn on the way. kWidth: elements that are read at once.
template <int kWidth, class T, class C>
__device__ inline void score_rows(const C* row, const HeadRows<const T>& rows, int first, int count,
                                  int head_dim, const Angles<C>& angles, C factor, C* scores) {
  const int lane = static_cast<int>(threadIdx.x) % kScoreLanes;
  const int warp_keys = static_cast<int>(threadIdx.x) / kWarp * (kWarp / kScoreLanes);
  for (int base = warp_keys; base < count; base += kThreads / kScoreLanes) {
    const int n = base + static_cast<int>(threadIdx.x) % kWarp / kScoreLanes;
    C sum = 0;
    if (n < count) {
      const T* x = rows.row(first + n);
      for (int d = lane * kWidth; d < head_dim; d += kScoreLanes * kWidth) {
        C values[kWidth];
        if (angles.cosines) {
#pragma unroll
          for (int i = 0; i < kWidth; ++i)
            values[i] = rotated(x, d + i, head_dim, angles, first + n);
        } else {
          load<kWidth>(values, x + d);
        }
#pragma unroll
        for (int i = 0; i < kWidth; ++i) sum += row[d + i] * values[i];
      }
    }
#pragma unroll
    for (int distance = kScoreLanes / 2; distance > 0; distance /= 2)
      sum += __shfl_xor_sync(kAllLanes, sum, distance);
    if (lane == 0 && n < count) scores[n] = sum * factor;
  }
}

// result[d] (+)= sum over n of weights[n] * rows[first + n][d], by the whole block, in shared
// memory. `partial`: C [kThreads * kWidth].
template <int kWidth, class T, class C>
__device__ inline void mix_rows(const C* weights, const HeadRows<const T>& rows, int first,
                                int count, int head_dim, const Angles<C>& angles, C* partial,
                                bool add, C* result) {
  const int packs = head_dim / kWidth, across = packs < kThreads ? packs : kThreads;
  const int groups = kThreads / across;  // of threads that share out the keys
  const int group = static_cast<int>(threadIdx.x) / across;
  for (int begin = 0; begin < packs; begin += across) {
    const int pack = begin + static_cast<int>(threadIdx.x) % across;
    C sums[kWidth] = {};
    if (group < groups && pack < packs) {
      for (int n = group; n < count; n += groups) {
        const T* x = rows.row(first + n);
        C values[kWidth];
        if (angles.cosines) {
#pragma unroll
          for (int i = 0; i < kWidth; ++i)
            values[i] = rotated(x, pack * kWidth + i, head_dim, angles, first + n);
        } else {
          load<kWidth>(values, x + pack * kWidth);
        }
#pragma unroll
        for (int i = 0; i < kWidth; ++i) sums[i] += weights[n] * values[i];
      }
    }
    __syncthreads();  // `partial` has been read
#pragma unroll
    for (int i = 0; i < kWidth; ++i) partial[threadIdx.x * kWidth + i] = sums[i];
    __syncthreads();
    for (int d = static_cast<int>(threadIdx.x); d < across * kWidth; d += kThreads) {
      const int column = begin * kWidth + d;
      if (column >= head_dim) break;
      C sum = 0;
      for (int g = 0; g < groups; ++g) sum += partial[g * across * kWidth + d];
      result[column] = add ? result[column] + sum : sum;
    }
  }
  __syncthreads();
}

// Scores -> weights 2^(score - largest), in place; sets the largest score and the weights' sum, and
// multiplies the weights with `factor(n)` after that.
template <class C, class Factor>
__device__ inline void soften(C* weights, int count, C* shared, C& largest, C& sum,
                              Factor&& factor) {
  largest = kHidden;
  for (int n = static_cast<int>(threadIdx.x); n < count; n += kThreads)
    largest = weights[n] > largest ? weights[n] : largest;
  largest = block_reduce(largest, C(kHidden), shared, Max{});
  sum = 0;
  for (int n = static_cast<int>(threadIdx.x); n < count; n += kThreads) {
    const C weight = power_of_2(weights[n] - largest);
    sum += weight;
    weights[n] = weight * factor(n);
  }
  sum = block_sum(sum, shared);
  __syncthreads();
}

// One span's share of a row: the output's sums [head_dim] before division, the largest score, the
// sum of weights.
template <class C>
__device__ inline C* span_of(C* spans, int64_t row, int64_t span, int64_t count, int64_t head_dim) {
  return spans + (row * count + span) * (head_dim + 2);
}

}  // namespace

// `spans`: null where one block sees all keys.
template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads) attention_row(AttentionArgs a, Compute<T>* spans) {
  using C = Compute<T>;
  ADAGATE_DYNAMIC_SHARED(C, memory);
  const auto head_dim = static_cast<int>(a.head_dim);
  C *query = memory, *result = query + head_dim, *weights = result + head_dim;
  C *partial = weights + kSpan, *shared = partial + kThreads * kWidth;
  const RowPlace at(a, blockIdx.x);
  const int64_t kv_head = at.head / (a.heads / a.kv_heads);
  const SampleRows rows(a, at.sample);
  const bool real = at.row < rows.queries;
  const int limit = real ? rows.key_limit(at.row + 1) : 0;
  const int first = static_cast<int>(blockIdx.y) * kSpan;
  const int count = limit - first < kSpan ? limit - first : kSpan;

  const Angles<C> angles(a, real, rows.start);
  const HeadRows<const T> query_rows(a.q, at.sample, at.head, head_dim);
  for (int d = static_cast<int>(threadIdx.x); d < head_dim; d += kThreads)
    query[d] = real ? rotated(query_rows.row(at.row), d, head_dim, angles, at.row) : C(0);
  __syncthreads();
  score_rows<kWidth>(query, HeadRows<const T>(a.k, at.sample, kv_head, head_dim), first, count,
                     head_dim, Angles<C>(a, a.rotate_keys, 0), static_cast<C>(a.scale * kLog2E),
                     weights);
  __syncthreads();
  const uint32_t key32 = real && a.addresses ? dropout_key(a, at.sample, at.head, at.row) : 0;
  C largest, sum;
  soften(weights, count, shared, largest, sum, [&](int n) {
    return a.addresses ? static_cast<C>(a.mask.factor(key32, static_cast<uint32_t>(first + n)))
                       : C(1);
  });
  mix_rows<kWidth>(weights, HeadRows<const T>(a.v, at.sample, kv_head, head_dim), first, count,
                   head_dim, Angles<C>(), partial, false, result);
  if (spans) {
    C* span = span_of(spans, blockIdx.x, blockIdx.y, gridDim.y, head_dim);
    for (int d = static_cast<int>(threadIdx.x); d < head_dim; d += kThreads) span[d] = result[d];
    if (threadIdx.x == 0) span[head_dim] = largest;
    if (threadIdx.x == 0) span[head_dim + 1] = sum;
    return;
  }
  T* output = HeadRows<T>(a.output, at.sample, at.head, head_dim).row(at.row);
  for (int d = static_cast<int>(threadIdx.x); d < head_dim; d += kThreads)
    output[d] = limit > 0 ? T(result[d] / sum) : T{};
  if (a.lse && threadIdx.x == 0)
    static_cast<C*>(a.lse)[at.statistic(a)] = limit > 0 ? largest + log_2(sum) : C(0);
}

// The spans of a row, in their order; threads have columns.
template <class T>
__global__ void __launch_bounds__(kThreads)
    attention_merge_spans(AttentionArgs a, const Compute<T>* spans, int count) {
  using C = Compute<T>;
  const auto head_dim = static_cast<int>(a.head_dim);
  const RowPlace at(a, blockIdx.x);
  const SampleRows rows(a, at.sample);
  const bool any = at.row < rows.queries && rows.key_limit(at.row + 1) > 0;
  const C* first = span_of(spans, blockIdx.x, 0, count, head_dim);
  C largest = kHidden, sum = 0;
  for (int s = 0; s < count; ++s) {
    const C own = first[s * (head_dim + 2) + head_dim];
    largest = own > largest ? own : largest;
  }
  for (int s = 0; s < count; ++s) {
    const C* span = first + s * (head_dim + 2) + head_dim;
    sum += span[1] * power_of_2(span[0] - largest);
  }
  T* output = HeadRows<T>(a.output, at.sample, at.head, head_dim).row(at.row);
  for (int d = static_cast<int>(threadIdx.x); d < head_dim; d += kThreads) {
    C value = 0;
    for (int s = 0; s < count; ++s) {
      const C* span = first + s * (head_dim + 2);
      value += span[d] * power_of_2(span[head_dim] - largest);
    }
    output[d] = any ? T(value / sum) : T{};
  }
  if (a.lse && threadIdx.x == 0)
    static_cast<C*>(a.lse)[at.statistic(a)] = any ? largest + log_2(sum) : C(0);
}

// A warp a row.
template <class T>
__global__ void __launch_bounds__(kThreads)
    attention_delta(AttentionBackwardArgs args, Compute<T>* deltas, int64_t count) {
  using C = Compute<T>;
  const AttentionArgs& a = args.forward;
  const int64_t i = global_thread() / kWarp;
  if (i >= count) return;
  const RowPlace at(a, i);
  if (at.row >= SampleRows(a, at.sample).queries) return;
  const T* dout = HeadRows<const T>(args.doutput, at.sample, at.head, a.head_dim).row(at.row);
  const T* out = HeadRows<const T>(a.output, at.sample, at.head, a.head_dim).row(at.row);
  C sum = 0;
  for (int64_t d = threadIdx.x % kWarp; d < a.head_dim; d += kWarp)
    sum += static_cast<C>(dout[d]) * static_cast<C>(out[d]);
  sum = warp_sum(sum);
  if (threadIdx.x % kWarp == 0) deltas[at.statistic(a)] = sum;
}

// dQ of one row of one head: the gradients of its scores, a span of keys at a time.
template <class T>
__global__ void __launch_bounds__(kThreads)
    attention_backward_query_row(AttentionBackwardArgs args, const Compute<T>* deltas) {
  using C = Compute<T>;
  const AttentionArgs& a = args.forward;
  ADAGATE_DYNAMIC_SHARED(C, memory);
  const auto head_dim = static_cast<int>(a.head_dim);
  C *query = memory, *dout = query + head_dim, *result = dout + head_dim;
  C *scores = result + head_dim, *dscores = scores + kSpan, *partial = dscores + kSpan;
  const auto thread = static_cast<int>(threadIdx.x);
  const RowPlace at(a, blockIdx.x);
  const int64_t kv_head = at.head / (a.heads / a.kv_heads);
  const SampleRows rows(a, at.sample);
  const HeadRows<T> dq(args.dq, at.sample, at.head, head_dim);
  if (at.row >= rows.queries) {
    if (!args.accumulate_dq && thread < kWarp) zero_row(dq, at.row, head_dim);
    return;
  }
  const int limit = rows.key_limit(at.row + 1);
  const Angles<C> angles(a, true, rows.start), key_angles(a, a.rotate_keys, 0);
  const HeadRows<const T> k(a.k, at.sample, kv_head, head_dim);
  const HeadRows<const T> v(a.v, at.sample, kv_head, head_dim);
  const T* q_row = HeadRows<const T>(a.q, at.sample, at.head, head_dim).row(at.row);
  const T* dout_row = HeadRows<const T>(args.doutput, at.sample, at.head, head_dim).row(at.row);
  for (int d = thread; d < head_dim; d += kThreads) {
    query[d] = rotated(q_row, d, head_dim, angles, at.row);
    dout[d] = static_cast<C>(dout_row[d]);
    result[d] = 0;
  }
  __syncthreads();
  const C lse = static_cast<const C*>(a.lse)[at.statistic(a)], delta = deltas[at.statistic(a)];
  const uint32_t key32 = a.addresses ? dropout_key(a, at.sample, at.head, at.row) : 0;
  for (int first = 0; first < limit; first += kSpan) {
    const int count = limit - first < kSpan ? limit - first : kSpan;
    score_rows<1>(query, k, first, count, head_dim, key_angles, static_cast<C>(a.scale * kLog2E),
                  scores);
    score_rows<1>(dout, v, first, count, head_dim, Angles<C>(), C(1), dscores);
    __syncthreads();
    for (int n = thread; n < count; n += kThreads) {
      const C factor = a.addresses
                           ? static_cast<C>(a.mask.factor(key32, static_cast<uint32_t>(first + n)))
                           : C(1);
      dscores[n] = power_of_2(scores[n] - lse) * (dscores[n] * factor - delta);
    }
    __syncthreads();
    mix_rows<1>(dscores, k, first, count, head_dim, key_angles, partial, true, result);
  }
  if (thread < kWarp)
    write_row(dq, at.row, head_dim, result, static_cast<C>(a.scale), angles, args.accumulate_dq);
}

// dK and dV of one row of one key-value head: the gradients of its scores, a span of the queries of
// one of its heads at a time.
template <class T>
__global__ void __launch_bounds__(kThreads)
    attention_backward_key_row(AttentionBackwardArgs args, const Compute<T>* deltas) {
  using C = Compute<T>;
  const AttentionArgs& a = args.forward;
  ADAGATE_DYNAMIC_SHARED(C, memory);
  const auto head_dim = static_cast<int>(a.head_dim);
  C *key = memory, *value = key + head_dim, *dk = value + head_dim, *dv = dk + head_dim;
  C *weights = dv + head_dim, *dscores = weights + kSpan, *partial = dscores + kSpan;
  const auto thread = static_cast<int>(threadIdx.x);
  const auto row = static_cast<int>(blockIdx.x / a.kv_heads % a.keys);
  const int64_t sample = blockIdx.x / a.kv_heads / a.keys, kv_head = blockIdx.x % a.kv_heads;
  const int64_t group = a.heads / a.kv_heads;
  const SampleRows rows(a, sample);
  const Angles<C> angles(a, true, rows.start), key_angles(a, a.rotate_keys, 0);
  const bool real = row < rows.seen;
  const T* k_row = HeadRows<const T>(a.k, sample, kv_head, head_dim).row(row);
  const T* v_row = HeadRows<const T>(a.v, sample, kv_head, head_dim).row(row);
  for (int d = thread; d < head_dim; d += kThreads) {
    key[d] = real ? rotated(k_row, d, head_dim, key_angles, row) : C(0);
    value[d] = real ? static_cast<C>(v_row[d]) : C(0);
    dk[d] = dv[d] = 0;
  }
  __syncthreads();
  const int earliest = a.causal && row > rows.start ? row - rows.start : 0;
  for (int64_t head = kv_head * group; real && head < (kv_head + 1) * group; ++head) {
    const HeadRows<const T> q(a.q, sample, head, head_dim);
    const HeadRows<const T> dout(args.doutput, sample, head, head_dim);
    const int64_t of_head = (sample * a.heads + head) * a.queries;
    for (int first = earliest; first < rows.queries; first += kSpan) {
      const int count = rows.queries - first < kSpan ? rows.queries - first : kSpan;
      score_rows<1>(key, q, first, count, head_dim, angles, static_cast<C>(a.scale * kLog2E),
                    weights);
      score_rows<1>(value, dout, first, count, head_dim, Angles<C>(), C(1), dscores);
      __syncthreads();
      for (int n = thread; n < count; n += kThreads) {
        const int64_t at = of_head + first + n;
        const C factor = a.addresses
                             ? static_cast<C>(a.mask.factor(dropout_key(a, sample, head, first + n),
                                                            static_cast<uint32_t>(row)))
                             : C(1);
        const C weight = power_of_2(weights[n] - static_cast<const C*>(a.lse)[at]);
        weights[n] = weight * factor;
        dscores[n] = weight * (dscores[n] * factor - deltas[at]);
      }
      __syncthreads();
      mix_rows<1>(weights, dout, first, count, head_dim, Angles<C>(), partial, true, dv);
      mix_rows<1>(dscores, q, first, count, head_dim, angles, partial, true, dk);
    }
  }
  if (thread >= kWarp) return;
  auto write = [&](const HeadsView& view, const C* sums, C factor, const Angles<C>& turned,
                   bool accumulate) {
    if (!view.data) return;
    const HeadRows<T> to(view, sample, kv_head, head_dim);
    if (real) write_row(to, row, head_dim, sums, factor, turned, accumulate);
    if (!real && !accumulate) zero_row(to, row, head_dim);
  };
  write(args.dk, dk, static_cast<C>(a.scale), key_angles, args.accumulate_dk);
  write(args.dv, dv, C(1), Angles<C>(), args.accumulate_dv);
}

namespace {

template <class T, int kWidth>
void attend_rows(CudaStream& stream, const AttentionArgs& a) {
  using C = Compute<T>;
  const int64_t rows = a.batch * a.queries * a.heads;
  const int64_t spans = std::max<int64_t>(1, (a.keys + kSpan - 1) / kSpan);
  const size_t bytes =
      static_cast<size_t>(2 * a.head_dim + kSpan + kThreads * kWidth + kWarp) * sizeof(C);
  const dim3 grid(static_cast<unsigned>(rows), static_cast<unsigned>(spans));
  ADAGATE_ALLOW_SHARED((attention_row<T, kWidth>), bytes);
  if (spans == 1) {
    ADAGATE_LAUNCH((attention_row<T, kWidth>), grid, kThreads, bytes, stream, a,
                   static_cast<C*>(nullptr));
    return;
  }
  const Scratch<C> parts(stream, rows * spans * (a.head_dim + 2));
  ADAGATE_LAUNCH((attention_row<T, kWidth>), grid, kThreads, bytes, stream, a, parts.data());
  ADAGATE_LAUNCH(attention_merge_spans<T>, static_cast<unsigned>(rows), kThreads, 0, stream, a,
                 static_cast<const C*>(parts.data()), static_cast<int>(spans));
}

template <class T>
void backward_rows(CudaStream& stream, const AttentionBackwardArgs& args) {
  using C = Compute<T>;
  const AttentionArgs& a = args.forward;
  const Scratch<C> deltas(stream, std::max<int64_t>(1, a.batch * a.heads * a.queries));
  attention_deltas(stream, args, deltas.data());
  const size_t bytes = static_cast<size_t>(4 * a.head_dim + 2 * kSpan + kThreads) * sizeof(C);
  const C* of_rows = deltas.data();
  const int64_t queries = a.batch * a.heads * a.queries, keys = a.batch * a.kv_heads * a.keys;
  if (args.dq.data && queries > 0) {
    ADAGATE_ALLOW_SHARED(attention_backward_query_row<T>, bytes);
    ADAGATE_LAUNCH(attention_backward_query_row<T>, static_cast<unsigned>(queries), kThreads, bytes,
                   stream, args, of_rows);
  }
  if ((args.dk.data || args.dv.data) && keys > 0) {
    ADAGATE_ALLOW_SHARED(attention_backward_key_row<T>, bytes);
    ADAGATE_LAUNCH(attention_backward_key_row<T>, static_cast<unsigned>(keys), kThreads, bytes,
                   stream, args, of_rows);
  }
}

}  // namespace

void attend_row_by_row(CudaStream& stream, const AttentionArgs& a) {
  const bool pack = rows_pack(a.k, a) && rows_pack(a.v, a);
  visit_floating(a.dtype, [&](auto type) {
    using T = decltype(type);
    pack ? attend_rows<T, kPack<T>>(stream, a) : attend_rows<T, 1>(stream, a);
  });
}

void attention_deltas(CudaStream& stream, const AttentionBackwardArgs& args, void* deltas) {
  const AttentionArgs& a = args.forward;
  const int64_t rows = a.batch * a.heads * a.queries;
  if (rows == 0) return;
  constexpr int64_t kWarps = kThreads / kWarp;
  visit_floating(a.dtype, [&](auto type) {
    using T = decltype(type);
    ADAGATE_LAUNCH(attention_delta<T>, static_cast<unsigned>((rows + kWarps - 1) / kWarps),
                   kThreads, 0, stream, args, static_cast<Compute<T>*>(deltas), rows);
  });
}

void attend_backward_row_by_row(CudaStream& stream, const AttentionBackwardArgs& args) {
  visit_floating(args.forward.dtype,
                 [&](auto type) { backward_rows<decltype(type)>(stream, args); });
}

}  // namespace adagate::cuda
