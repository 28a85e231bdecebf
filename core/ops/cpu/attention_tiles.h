// What forward and backward attention share: rows packed to aligned tiles in the type that is
// computed in (rotated on the way), the mask of dropout, and the split of work among threads.
#pragma once

#include <algorithm>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "core/ops/attention.h"
#include "core/ops/cpu/matrix_tiles.h"
#include "core/ops/cpu/vector_functions.h"

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

// Where the rows of one (sample, head) stand in a [tokens, columns] matrix.
template <class T>
struct HeadRows {
  T* first;        // row 0, the head's first column
  int64_t stride;  // elements from row to row
  T* row(int64_t t) const { return first + t * stride; }
};

template <class C>
struct RotaryRows {
  const C* cosines = nullptr;  // [positions, head_dim / 2]; null: no rotation
  const C* sines = nullptr;
};

// Working memory of all threads, each part aligned to the widest vectors. Made before the threads
// part, since an exception must not leave a parallel region.
template <class C>
class Scratch {
 public:
  // Hands out pieces of one thread's part.
  class Part {
   public:
    explicit Part(C* first) : next_(first) {}
    template <class E = C>
    E* take(int64_t elements) {
      static_assert(sizeof(E) == sizeof(C));
      C* at = next_;
      next_ += round_up(elements, kLanes<C>);
      return reinterpret_cast<E*>(at);
    }

   private:
    C* next_;
  };

  Scratch(int64_t threads, int64_t elements)
      : each_(round_up(elements, kLanes<C>)),
        memory_(Tensor::empty({threads * each_}, dtype_of<C>())) {}
  Part of_this_thread() const {
#ifdef _OPENMP
    const int64_t thread = omp_get_thread_num();
#else
    const int64_t thread = 0;
#endif
    return Part(memory_.template data<C>() + thread * each_);
  }

 private:
  int64_t each_;
  Tensor memory_;
};

// Asks for rows that are read or written soon, a few at a time between products, so that their way
// from memory takes no time of its own.
class RowPrefetch {
 public:
  // Forgets what is left; `row_bytes` of every row are asked for.
  void clear(int64_t row_bytes) {
    sets_ = at_ = 0;
    row_bytes_ = row_bytes;
  }
  // Rows [begin, end), at most kMost of them; a matrix that is not constant will be written.
  template <class T>
  void add(const HeadRows<T>& rows, int64_t begin, int64_t end) {
    if (begin >= end || sets_ == kSets) return;
    constexpr auto kSize = static_cast<int64_t>(sizeof(T));
    set_[sets_++] = {reinterpret_cast<const char*>(rows.row(begin)), rows.stride * kSize,
                     std::min(end - begin, kMost), !std::is_const_v<T>};
  }
  // Spreads what has been added over `calls` calls of some().
  void spread(int64_t calls) {
    int64_t rows = 0;
    for (int i = 0; i < sets_; ++i) rows += set_[i].rows;
    per_call_ = calls > 0 ? (rows + calls - 1) / calls : 0;
  }
  void some() {
    for (int64_t n = per_call_; n > 0 && at_ < sets_; --n) {
      Set& set = set_[at_];
      const char* end = set.next + row_bytes_;
      if (set.write) {
        for (const char* p = set.next; p < end; p += 64) __builtin_prefetch(p, 1, 2);
      } else {
        for (const char* p = set.next; p < end; p += 64) __builtin_prefetch(p, 0, 2);
      }
      set.next += set.stride;
      if (--set.rows == 0) ++at_;
    }
  }

 private:
  static constexpr int kSets = 8;
  static constexpr int64_t kMost = 256;  // rows: more would push out what is worked on
  struct Set {
    const char* next;
    int64_t stride, rows;
    bool write;
  };
  Set set_[kSets];
  int sets_ = 0, at_ = 0;
  int64_t row_bytes_ = 0, per_call_ = 0;
};

// to [padded_cols] = the rotated row, then zeros.
template <class T, class C>
inline void pack_row(const HeadRows<const T>& from, int64_t t, int64_t head_dim,
                     int64_t padded_cols, const RotaryRows<C>& rotary, C* to) {
  const T* x = from.row(t);
  int64_t i = 0;
  if (rotary.cosines) {
    const int64_t half = head_dim / 2;
    const C* cosine = rotary.cosines + t * half;
    const C* sine = rotary.sines + t * half;
#pragma omp simd
    for (int64_t d = 0; d < half; ++d) {
      const C low = static_cast<C>(x[d]), high = static_cast<C>(x[d + half]);
      to[d] = low * cosine[d] - high * sine[d];
      to[d + half] = high * cosine[d] + low * sine[d];
    }
    i = head_dim;
  } else {
    for (; i + kLanes<C> <= head_dim; i += kLanes<C>) store_any(to + i, load_any(x + i));
    for (; i < head_dim; ++i) to[i] = static_cast<C>(x[i]);
  }
  for (; i < padded_cols; ++i) to[i] = C(0);
}

// Rows [begin, end) of a head, rotated, as an operand with pairs along the rows, zeros in rows and
// columns past them: to [padded_rows, padded_cols / kDepth]. `spare`: C [2, padded_cols].
template <class Operands, class T, class C, class Element>
void pack_by_row(const HeadRows<const T>& from, int64_t begin, int64_t end, int64_t padded_rows,
                 int64_t head_dim, int64_t padded_cols, const RotaryRows<C>& rotary, C* spare,
                 Element* to) {
  const int64_t width = padded_cols / Operands::kDepth;
  for (int64_t t = begin; t < end; ++t, to += width) {
    if constexpr (Operands::kDepth == 1) {
      pack_row(from, t, head_dim, padded_cols, rotary, to);
    } else {
      const bool whole = !rotary.cosines && head_dim == padded_cols;
      if (!whole) pack_row(from, t, head_dim, padded_cols, rotary, spare);
      for (int64_t i = 0; i < width; i += kLanes<C>) {
        const auto* x = from.row(t) + 2 * i;
        store(to + i,
              whole ? load_any(reinterpret_cast<const Element*>(x))
                    : Operands::along_row(load(spare + 2 * i), load(spare + 2 * i + kLanes<C>)));
      }
    }
  }
  std::fill_n(to, (padded_rows - (end - begin)) * width, Element(0));
}

// The same with pairs along the columns: to [padded_rows / kDepth, padded_cols].
template <class Operands, class T, class C, class Element>
void pack_by_column(const HeadRows<const T>& from, int64_t begin, int64_t end, int64_t padded_rows,
                    int64_t head_dim, int64_t padded_cols, const RotaryRows<C>& rotary, C* spare,
                    Element* to) {
  if constexpr (Operands::kDepth == 1) {
    pack_by_row<Operands>(from, begin, end, padded_rows, head_dim, padded_cols, rotary, spare, to);
  } else {
    int64_t t = begin;
    for (; t < end; t += 2, to += padded_cols) {
      if (!rotary.cosines && head_dim == padded_cols && t + 1 < end) {
        for (int64_t i = 0; i < padded_cols; i += 2 * kLanes<C>)
          Operands::along_column(from.row(t) + i, from.row(t + 1) + i, to + i);
        continue;
      }
      C* next = spare + padded_cols;
      pack_row(from, t, head_dim, padded_cols, rotary, spare);
      if (t + 1 < end) {
        pack_row(from, t + 1, head_dim, padded_cols, rotary, next);
      } else {
        std::fill_n(next, padded_cols, C(0));
      }
      for (int64_t i = 0; i < padded_cols; i += kLanes<C>)
        store(to + i, Operands::along_column(load(spare + i), load(next + i)));
    }
    std::fill_n(to, (padded_rows - (t - begin)) / 2 * padded_cols, Element(0));
  }
}

// The inner product of two rows.
template <class T, class U>
inline Compute<T> row_product(const T* a, const U* b, int64_t n) {
  using C = Compute<T>;
  Vec<C> products{};
  int64_t i = 0;
  for (; i + kLanes<C> <= n; i += kLanes<C>) products += load_any(a + i) * load_any(b + i);
  C sum = sum_lanes<C>(products);
  for (; i < n; ++i) sum += static_cast<C>(a[i]) * static_cast<C>(b[i]);
  return sum;
}

// y [head_dim] (+)= factor * from, rotated back. `from` is aligned.
template <bool kAccumulate, class T, class C>
inline void unpack_row(const C* from, const C* cosine, const C* sine, int64_t head_dim, C factor,
                       T* y) {
  const int64_t half = head_dim / 2;
  if (cosine) {
#pragma omp simd
    for (int64_t i = 0; i < half; ++i) {
      const C low = factor * (from[i] * cosine[i] + from[i + half] * sine[i]);
      const C high = factor * (from[i + half] * cosine[i] - from[i] * sine[i]);
      y[i] = T(kAccumulate ? static_cast<C>(y[i]) + low : low);
      y[i + half] = T(kAccumulate ? static_cast<C>(y[i + half]) + high : high);
    }
    return;
  }
  int64_t i = 0;
  for (; i + kLanes<C> <= head_dim; i += kLanes<C>) {
    Vec<C> value = factor * load(from + i);
    if (kAccumulate) value += load_any(y + i);
    store_any(y + i, value);
  }
  for (; i < head_dim; ++i) {
    const C value = factor * from[i];
    y[i] = T(kAccumulate ? static_cast<C>(y[i]) + value : value);
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
  return dropout_factors(mask, load(keys) + column * Rng::kRowStride);
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
  const int64_t* ids = a.addresses + sample * a.queries;
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
        start(a.starts ? a.starts[sample] : 0),
        seen(real_rows(a.key_lengths, a.keys)),
        queries(seen > 0 ? real_rows(a.query_lengths, a.queries) : 0),
        rotary{static_cast<const C*>(a.cosines), static_cast<const C*>(a.sines)},
        args(a) {}

  // This sample's rows of a head; P: T, or const T where they are only read.
  template <class P>
  HeadRows<P> rows(const HeadsView& view, int64_t head) const {
    return {static_cast<P*>(view.data) + sample * view.sample_stride + head * args.head_dim,
            view.row_stride};
  }
  HeadRows<const T> query_rows(int64_t head) const { return rows<const T>(args.q, head); }
  HeadRows<const T> keys() const { return rows<const T>(args.k, kv_head); }
  HeadRows<const T> values() const { return rows<const T>(args.v, kv_head); }
  // Angles of the queries' and of the keys' rows.
  RotaryRows<C> query_rotary() const {
    const int64_t skipped = rotary.cosines ? start * (args.head_dim / 2) : 0;
    return {rotary.cosines + skipped, rotary.sines + skipped};
  }
  RotaryRows<C> key_rotary() const { return args.rotate_keys ? rotary : RotaryRows<C>{}; }
  C* lse(int64_t head) const {
    return static_cast<C*>(args.lse) + (sample * args.heads + head) * args.queries;
  }
  // Keys that the queries [0, query_end) see.
  int64_t key_limit(int64_t query_end) const {
    return args.causal ? std::min(seen, start + query_end) : seen;
  }

  int64_t sample, kv_head, group, padded_dim;
  int64_t start;    // position of the first query
  int64_t seen;     // keys that exist for this sample
  int64_t queries;  // rows of it that are not padding; none without keys: there is nothing to mix
  RotaryRows<C> rotary;
  const AttentionArgs& args;

 private:
  int64_t real_rows(const int32_t* lengths, int64_t rows) const {
    return lengths ? std::clamp<int64_t>(lengths[sample], 0, rows) : rows;
  }
};

// Calls f(unit) with what the products of a tensor of T run on.
template <class T, class F>
void on_product_unit(F&& f) {
#if ADAGATE_BF16_PRODUCTS
  if constexpr (std::is_same_v<T, bfloat16>) {
    if (visit_tile_unit(f)) return;
  }
#endif
  f(VectorUnit{});
}

}  // namespace adagate
