// What attention's kernels share: which rows of a sample are real, where heads stand, and rows of a
// head as tiles of shared memory, rotated on the way.
#pragma once

#include "core/ops/attention.h"
#include "core/ops/cuda/elements.h"

namespace adagate::cuda {

constexpr double kLog2E = 1.4426950408889634;
constexpr double kHidden = -1e30;  // score of a key that is not seen: its weight becomes 0

__device__ inline float power_of_2(float x) {
  return exp2f(x);
}
__device__ inline double power_of_2(double x) {
  return exp2(x);
}
__device__ inline float log_2(float x) {
  return log2f(x);
}
__device__ inline double log_2(double x) {
  return log2(x);
}

// Of one sample.
struct SampleRows {
  int start;    // position of the first query
  int seen;     // keys that exist
  int queries;  // rows that are not padding; none without keys: there is nothing to mix
  bool causal;

  __device__ SampleRows(const AttentionArgs& a, int64_t sample)
      : start(a.starts ? a.starts[sample] : 0),
        seen(real_rows(a.key_lengths, sample, a.keys)),
        queries(seen > 0 ? real_rows(a.query_lengths, sample, a.queries) : 0),
        causal(a.causal) {}
  // Keys that the queries [0, query_end) see.
  __device__ int key_limit(int query_end) const {
    return causal && start + query_end < seen ? start + query_end : seen;
  }

 private:
  __device__ static int real_rows(const int32_t* lengths, int64_t sample, int64_t rows) {
    const auto all = static_cast<int>(rows);
    if (!lengths) return all;
    const int length = lengths[sample];
    return length < 0 ? 0 : length < all ? length : all;
  }
};

// Rows of one (sample, head).
template <class T>
struct HeadRows {
  T* first;
  int64_t stride;  // elements from row to row

  __device__ HeadRows(const HeadsView& view, int64_t sample, int64_t head, int64_t head_dim)
      : first(static_cast<T*>(view.data) + sample * view.sample_stride + head * head_dim),
        stride(view.row_stride) {}
  __device__ T* row(int t) const { return first + t * stride; }
};

// Cosines and sines of the positions from some one on.
template <class C>
struct Angles {
  const C* cosines = nullptr;  // [positions, head_dim / 2]; null: no rotation
  const C* sines = nullptr;

  __device__ Angles() {}
  __device__ Angles(const AttentionArgs& a, bool wanted, int64_t first_position) {
    if (!wanted || !a.cosines) return;
    cosines = static_cast<const C*>(a.cosines) + first_position * (a.head_dim / 2);
    sines = static_cast<const C*>(a.sines) + first_position * (a.head_dim / 2);
  }
};

// Element d of row t, of a row x in any memory, rotated forward.
template <class C, class T>
__device__ inline C rotated(const T* x, int d, int head_dim, const Angles<C>& angles, int t) {
  if (!angles.cosines) return static_cast<C>(x[d]);
  const int half = head_dim / 2, i = d < half ? d : d - half;
  const C cosine = angles.cosines[static_cast<int64_t>(t) * half + i];
  const C sine = angles.sines[static_cast<int64_t>(t) * half + i];
  return d < half ? static_cast<C>(x[d]) * cosine - static_cast<C>(x[d + half]) * sine
                  : static_cast<C>(x[d]) * cosine + static_cast<C>(x[d - half]) * sine;
}
// The same back.
template <class C, class T>
__device__ inline C rotated_back(const T* x, int d, int head_dim, const Angles<C>& angles, int t) {
  if (!angles.cosines) return static_cast<C>(x[d]);
  const int half = head_dim / 2, i = d < half ? d : d - half;
  const C cosine = angles.cosines[static_cast<int64_t>(t) * half + i];
  const C sine = angles.sines[static_cast<int64_t>(t) * half + i];
  return d < half ? static_cast<C>(x[d]) * cosine + static_cast<C>(x[d + half]) * sine
                  : static_cast<C>(x[d]) * cosine - static_cast<C>(x[d - half]) * sine;
}

// The key of the dropout draws of a query.
__device__ inline uint32_t dropout_key(const AttentionArgs& a, int64_t sample, int64_t head,
                                       int query) {
  const int64_t address = a.addresses[sample * a.queries + query];
  return attention_row_key(a.rng.row_key(static_cast<uint64_t>(address)),
                           static_cast<uint32_t>(head));
}

// Whether the rows of such heads can be moved in packs of 16 bytes.
inline bool rows_pack(const HeadsView& view, const AttentionArgs& a) {
  const size_t bytes = size_of(a.dtype);
  // Rotation takes packs from both halves of a row.
  const int64_t unit = a.cosines ? a.head_dim / 2 : a.head_dim;
  return packs(unit, bytes, view.data) && packs(view.row_stride, bytes) &&
         packs(view.sample_stride, bytes);
}

// Rows of a head as a tile [kTileRows, kDim] of operands, rows kStride apart, by all threads of the
// block: `count` rows from t on, rotated; zeros in rows and columns past them. Operand: T, or what
// the tensor cores call it. `pack`: rows_pack() of the view.
template <int kTileRows, int kDim, int kStride, int kThreads, class Operand, class C, class T>
__device__ inline void load_rows(const HeadRows<const T>& from, int t, int count, int head_dim,
                                 const Angles<C>& angles, bool pack, Operand* to) {
  static_assert(sizeof(Operand) == sizeof(T));
  const auto thread = static_cast<int>(threadIdx.x);
  constexpr int kWidth = kPack<T>;
  if (!pack) {
    for (int i = thread; i < kTileRows * kDim; i += kThreads) {
      const int r = i / kDim, d = i % kDim;
      const bool real = r < count && d < head_dim;
      to[r * kStride + d] =
          Operand(real ? rotated(from.row(t + r), d, head_dim, angles, t + r) : C(0));
    }
    return;
  }
#pragma unroll 4
  for (int i = thread; i < kTileRows * (kDim / kWidth); i += kThreads) {
    const int r = i / (kDim / kWidth), d = i % (kDim / kWidth) * kWidth, half = head_dim / 2;
    const bool real = r < count && d < head_dim;
    if (!real || !angles.cosines) {
      uint4 bits = make_uint4(0, 0, 0, 0);
      if (real) bits = *reinterpret_cast<const uint4*>(from.row(t + r) + d);
      *reinterpret_cast<uint4*>(to + r * kStride + d) = bits;
    } else if (d < half) {
      C low[kWidth], high[kWidth], first[kWidth], second[kWidth];
      const int64_t angle = static_cast<int64_t>(t + r) * half + d;
      load<kWidth>(low, from.row(t + r) + d);
      load<kWidth>(high, from.row(t + r) + d + half);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        const C cosine = angles.cosines[angle + j], sine = angles.sines[angle + j];
        first[j] = low[j] * cosine - high[j] * sine;
        second[j] = high[j] * cosine + low[j] * sine;
      }
      store<kWidth>(to + r * kStride + d, first);
      store<kWidth>(to + r * kStride + d + half, second);
    }
  }
}

// Row t of a head (+)= factor * sums, rotated back, by the lanes of a warp. `sums` [head_dim].
template <class T, class C>
__device__ inline void write_row(const HeadRows<T>& to, int t, int head_dim, const C* sums,
                                 C factor, const Angles<C>& angles, bool accumulate) {
  T* row = to.row(t);
  for (int d = static_cast<int>(threadIdx.x) % kWarp; d < head_dim; d += kWarp) {
    const C value = factor * rotated_back(sums, d, head_dim, angles, t);
    row[d] = T(accumulate ? static_cast<C>(row[d]) + value : value);
  }
}
template <class T>
__device__ inline void zero_row(const HeadRows<T>& to, int t, int head_dim) {
  T* row = to.row(t);
  for (int d = static_cast<int>(threadIdx.x) % kWarp; d < head_dim; d += kWarp) row[d] = T{};
}

}  // namespace adagate::cuda
