// What forward and backward attention share: rows packed to aligned tiles in the type that is
// computed in (rotated on the way), the mask of dropout, and the split of work among threads.
#pragma once

#include <algorithm>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "core/ops/attention.h"
#include "core/ops/cpu/tile_product.h"

namespace adagate {

constexpr double kLog2E = 1.4426950408889634;

// Queries that stand side by side in the lanes of two vectors: scores are kept as [keys, queries],
// so the softmax over keys needs no sum across lanes.
template <class C>
constexpr int64_t kPanel = 2 * kLanes<C>;

// What the products of a tensor of T read.
template <class T>
struct OperandsOf {
  using type = ExactOperands<Compute<T>>;
};
#if ADAGATE_BF16_PRODUCTS
template <>
struct OperandsOf<bfloat16> {
  using type = Bf16Operands;
};
#endif

inline int64_t round_up(int64_t n, int64_t to) {
  return (n + to - 1) / to * to;
}

// Where the rows of one (sample, head) stand in a [tokens, columns] matrix.
template <class T>
struct HeadRows {
  T* first;        // row 0, the head's first column
  int64_t stride;  // elements from row to row
  T* row(int64_t t) const { return first + t * stride; }
};

template <class C>
struct RotaryRows {
  const C* cosines = nullptr;  // [sequence, head_dim / 2]; null: no rotation
  const C* sines = nullptr;
};

// Scratch memory of one thread, aligned to the widest vectors.
template <class C>
class Scratch {
 public:
  explicit Scratch(int64_t elements) : memory_(Tensor::empty({elements}, dtype_of<C>())) {
    next_ = memory_.template data<C>();
  }
  template <class E = C>
  E* take(int64_t elements) {
    static_assert(sizeof(E) == sizeof(C));
    C* at = next_;
    next_ += round_up(elements, kLanes<C>);
    return reinterpret_cast<E*>(at);
  }

 private:
  Tensor memory_;
  C* next_;
};

// to [padded_rows, padded_cols] = rotated rows [begin, end), zeros elsewhere.
template <class T, class C>
void pack_rows(const HeadRows<const T>& from, int64_t begin, int64_t end, int64_t padded_rows,
               int64_t head_dim, int64_t padded_cols, const RotaryRows<C>& rotary, C* to) {
  const int64_t half = head_dim / 2;
  for (int64_t t = begin; t < end; ++t, to += padded_cols) {
    const T* x = from.row(t);
    if (rotary.cosines) {
      const C* cosine = rotary.cosines + t * half;
      const C* sine = rotary.sines + t * half;
#pragma omp simd
      for (int64_t i = 0; i < half; ++i) {
        const C low = static_cast<C>(x[i]), high = static_cast<C>(x[i + half]);
        to[i] = low * cosine[i] - high * sine[i];
        to[i + half] = high * cosine[i] + low * sine[i];
      }
    } else {
#pragma omp simd
      for (int64_t i = 0; i < head_dim; ++i) to[i] = static_cast<C>(x[i]);
    }
    for (int64_t i = head_dim; i < padded_cols; ++i) to[i] = C(0);
  }
  std::fill_n(to, (padded_rows - (end - begin)) * padded_cols, C(0));
}

template <bool kAccumulate, class T, class C>
void unpack_row(const C* from, const C* cosine, const C* sine, int64_t head_dim, C factor, T* y) {
  const int64_t half = head_dim / 2;
  if (cosine) {
#pragma omp simd
    for (int64_t i = 0; i < half; ++i) {
      const C low = factor * (from[i] * cosine[i] + from[i + half] * sine[i]);
      const C high = factor * (from[i + half] * cosine[i] - from[i] * sine[i]);
      y[i] = T(kAccumulate ? static_cast<C>(y[i]) + low : low);
      y[i + half] = T(kAccumulate ? static_cast<C>(y[i + half]) + high : high);
    }
  } else {
#pragma omp simd
    for (int64_t i = 0; i < head_dim; ++i) {
      const C value = factor * from[i];
      y[i] = T(kAccumulate ? static_cast<C>(y[i]) + value : value);
    }
  }
}

// Rows [begin, end) of `to` = factor * from, rotated back; `accumulate` adds instead.
template <class T, class C>
void unpack_rows(const C* from, int64_t padded_cols, int64_t begin, int64_t end, int64_t head_dim,
                 const RotaryRows<C>& rotary, C factor, bool accumulate, const HeadRows<T>& to) {
  const int64_t half = head_dim / 2;
  for (int64_t t = begin; t < end; ++t, from += padded_cols) {
    const C* cosine = rotary.cosines ? rotary.cosines + t * half : nullptr;
    const C* sine = rotary.sines ? rotary.sines + t * half : nullptr;
    if (accumulate) {
      unpack_row<true>(from, cosine, sine, head_dim, factor, to.row(t));
    } else {
      unpack_row<false>(from, cosine, sine, head_dim, factor, to.row(t));
    }
  }
}

// Sets the lanes of queries before key `key` to `value`: they don't see it. `first` is lane 0's
// position.
template <class C>
inline Vec<C> hide_later_keys(Vec<C> scores, int64_t first, int64_t key, C value) {
  using Index = Vec<std::conditional_t<sizeof(C) == 4, int32_t, int64_t>>;
  Index lane;
  for (int i = 0; i < kLanes<C>; ++i) lane[i] = i;
  const auto limit = static_cast<std::conditional_t<sizeof(C) == 4, int32_t, int64_t>>(key - first);
  return lane < limit ? broadcast(value) : scores;
}

// Factors of kLanes queries for one key: 0 or the mask's scale.
inline Vec<float> dropout_factors(const DropoutMask& mask, const uint32_t* keys, uint32_t column,
                                  float) {
  using Bits = Vec<uint32_t>;
  Bits x = load(keys) + column * Rng::kRowStride;
  x ^= x >> 16;
  x *= 0x21f0aaadu;
  x ^= x >> 15;
  x *= 0x735a2d97u;
  x ^= x >> 15;
  return x >= mask.threshold ? broadcast(mask.scale) : Vec<float>{};
}
inline Vec<double> dropout_factors(const DropoutMask& mask, const uint32_t* keys, uint32_t column,
                                   double) {
  Vec<double> factors;
  for (int i = 0; i < kLanes<double>; ++i) factors[i] = mask.factor(keys[i], column);
  return factors;
}

// Dropout keys of the `count` queries from `first` of one head; lanes past them are unused.
inline void dropout_keys(const AttentionArgs& a, int64_t sample, int64_t head, int64_t first,
                         int64_t count, uint32_t* keys) {
  const int64_t* ids = a.row_ids + sample * a.sequence;
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t row_key = a.rng.row_key(static_cast<uint64_t>(ids[first + i]));
    keys[i] = attention_row_key(row_key, static_cast<uint32_t>(head));
  }
}

// One key-value head of one sample with everything derived from the arguments.
template <class T>
struct AttentionUnit {
  using C = Compute<T>;
  // The head's dimensions are the columns of one product and the rows of another.
  static constexpr int64_t kColumns = std::max(OperandsOf<T>::type::kDepth * kLanes<C>, kMicroRows);

  AttentionUnit(const AttentionArgs& a, int64_t unit)
      : sample(unit / a.kv_heads),
        kv_head(unit % a.kv_heads),
        group(a.heads / a.kv_heads),
        padded_dim(round_up(a.head_dim, kColumns)),
        seen(a.lengths ? std::clamp<int64_t>(a.lengths[sample], 0, a.sequence) : a.sequence),
        rotary{static_cast<const C*>(a.cosines), static_cast<const C*>(a.sines)},
        args(a) {}

  // Rows of q head, k or v in a matrix laid out like qkv.
  template <class P>
  HeadRows<P> q_rows(P* qkv, int64_t head) const {
    return columns(qkv, head);
  }
  template <class P>
  HeadRows<P> k_rows(P* qkv) const {
    return columns(qkv, args.heads + kv_head);
  }
  template <class P>
  HeadRows<P> v_rows(P* qkv) const {
    return columns(qkv, args.heads + args.kv_heads + kv_head);
  }
  // Rows of a head in a matrix laid out like the output.
  template <class P>
  HeadRows<P> output_rows(P* output, int64_t head) const {
    const int64_t stride = args.heads * args.head_dim;
    return {output + sample * args.sequence * stride + head * args.head_dim, stride};
  }
  C* lse(int64_t head) const {
    return static_cast<C*>(args.lse) + (sample * args.heads + head) * args.sequence;
  }
  // Keys that queries before position `query_end` see.
  int64_t key_limit(int64_t query_end) const {
    return args.causal ? std::min(seen, query_end) : seen;
  }

  int64_t sample, kv_head, group, padded_dim;
  int64_t seen;  // keys that exist for this sample
  RotaryRows<C> rotary;
  const AttentionArgs& args;

 private:
  template <class P>
  HeadRows<P> columns(P* qkv, int64_t head) const {
    const int64_t stride = (args.heads + 2 * args.kv_heads) * args.head_dim;
    return {qkv + sample * args.sequence * stride + head * args.head_dim, stride};
  }
};

inline int available_threads() {
#ifdef _OPENMP
  return omp_in_parallel() ? 1 : omp_get_max_threads();
#else
  return 1;
#endif
}

}  // namespace adagate
