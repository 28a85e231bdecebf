// Blockwise attention, forward, on the CPU. One unit of work is a slice of the queries of all heads
// that share a key-value head of one sample: K and V are packed once per unit (rotated, as operands
// of the products) when the first query sees them, and stay in the second-level cache. Scores are
// kept as [keys, queries] in tiles of kKeys x kPanel that fit the first level; both products run
// from registers, so the arithmetic, 4 * head_dim operations per score, dominates the bytes, which
// are read and written once. Scores above the diagonal are left out by vectors of queries.
// A query's result does not depend on the slicing, hence not on the number of threads.
#include "core/ops/attention.h"

#include "core/base/threads.h"
#include "core/ops/cpu/attention_rows.h"
#include "core/ops/cpu/attention_tiles.h"

namespace adagate {
namespace {

constexpr int64_t kKeys = 128;     // keys per block
constexpr double kHidden = -1e30;  // score of a key that is not seen: its weight becomes 0

template <class T, class Unit>
class Forward {
 public:
  using C = Compute<T>;
  using Operands = typename OperandsOf<T>::type;
  using Element = typename Operands::Element;
  static constexpr int kDepth = Operands::kDepth;
  static constexpr int64_t L = kLanes<C>;

  Forward(const AttentionArgs& args, int64_t unit, int64_t first_query, int64_t last_query,
          int64_t next_unit, typename Scratch<C>::Part scratch)
      : args_(args),
        unit_(args, unit),
        first_(first_query),
        last_(std::min(last_query, args.queries)),
        keys_(std::max<int64_t>(0, unit_.key_limit(std::min(last_, unit_.queries)))),
        padded_keys_(round_up(keys_, kKeyStep)),
        next_unit_(next_unit) {
    const int64_t dim = unit_.padded_dim;
    k_ = scratch.template take<Element>(padded_keys_ * row_elements());
    v_ = scratch.template take<Element>(padded_keys_ * row_elements());
    if (Unit::kLeftByRow) v_rows_ = scratch.template take<Element>(padded_keys_ * row_elements());
    q_ = scratch.template take<Element>(kPanel<C> * row_elements());
    q_transposed_ = scratch.template take<Element>(kPanel<C> * row_elements());
    o_ = scratch.take(kPanel<C> * dim);
    o_transposed_ = scratch.take(kPanel<C> * dim);
    scores_ = scratch.take(kKeys * kPanel<C>);
    spare_ = scratch.take(2 * dim);
  }
  // Elements of scratch memory that one unit takes at most.
  static int64_t scratch(const AttentionArgs& args) {
    const int64_t dim = AttentionUnit<T>(args, 0).padded_dim;
    const int64_t forms = Unit::kLeftByRow ? 3 : 2;
    return forms * round_up(args.keys, kKeyStep) * dim / kDepth + 2 * kPanel<C> * dim / kDepth +
           2 * (kPanel<C> + 1) * dim + kKeys * kPanel<C>;
  }

  void run() {
    [[maybe_unused]] const typename Unit::Session session;
    for (int64_t g = 0; g < unit_.group; ++g) {
      const int64_t head = unit_.kv_head * unit_.group + g;
      for (int64_t q = first_; q < last_; q += kPanel<C>) panel(head, q);
    }
  }

 private:
  // Keys are the rows of one product and the depth of the other.
  static constexpr int64_t kKeyStep = std::max<int64_t>(Unit::kRows, Unit::kDepthStep* kDepth);

  int64_t row_elements() const { return unit_.padded_dim / kDepth; }

  // The keys and values up to `end` that have not been packed yet.
  void pack_keys(int64_t end) {
    if (end <= packed_) return;
    end = std::min(keys_, round_up(end, kPanel<C>));  // pairs of rows stay together
    const int64_t dim = unit_.padded_dim, rows = (end == keys_ ? padded_keys_ : end) - packed_;
    pack_by_row<Operands>(unit_.keys(), packed_, end, rows, args_.head_dim, dim, unit_.key_rotary(),
                          spare_, k_ + packed_ * row_elements());
    pack_by_column<Operands>(unit_.values(), packed_, end, rows, args_.head_dim, dim,
                             RotaryRows<C>{}, spare_, v_ + packed_ * row_elements());
    if constexpr (Unit::kLeftByRow)
      transpose(rows / kDepth, dim, v_ + packed_ * row_elements(), dim, v_rows_ + packed_ / kDepth,
                padded_keys_ / kDepth);
    packed_ = end;
  }

  // The queries [first, first + kPanel) of one head.
  void panel(int64_t head, int64_t first) {
    const int64_t dim = unit_.padded_dim, end = std::min(first + kPanel<C>, args_.queries);
    const int64_t real_end = std::clamp(unit_.queries, first, end);  // rows past it are zero
    const int64_t limit = unit_.key_limit(real_end);
    const auto output = unit_.template rows<T>(args_.output, head);
    C* lse = args_.lse ? unit_.lse(head) : nullptr;
    for (int64_t t = real_end; t < end; ++t) {
      std::fill_n(output.row(t), args_.head_dim, T{});
      if (lse) lse[t] = C(0);
    }
    if (real_end == first) return;
    pack_keys(limit);
    pack_by_row<Operands>(unit_.query_rows(head), first, real_end, kPanel<C>, args_.head_dim, dim,
                          unit_.query_rotary(), spare_, q_);
    transpose(kPanel<C>, row_elements(), q_, row_elements(), q_transposed_, kPanel<C>);
    if (args_.addresses) dropout_keys(args_, unit_.sample, head, first, real_end - first, keys32_);
    expect_rows(head, first, end, limit);

    for (int j = 0; j < 2; ++j) {
      max_[j] = broadcast(static_cast<C>(kHidden));
      sum_[j] = Vec<C>{};
    }
    for (int64_t key = 0; key < limit; key += kKeys) block(first, key, limit);

    transpose(dim, kPanel<C>, o_transposed_, kPanel<C>, o_, dim);
    for (int64_t t = first; t < real_end; ++t) {
      const int64_t j = (t - first) / L, i = (t - first) % L;
      unpack_row<false, T, C>(o_ + (t - first) * dim, nullptr, nullptr, args_.head_dim,
                              C(1) / sum_[j][i], output.row(t));
      if (lse) lse[t] = max_[j][i] + std::log2(sum_[j][i]);
    }
  }

  // Has the rows that are read next, and those that this panel writes, fetched during its products.
  void expect_rows(int64_t head, int64_t first, int64_t end, int64_t limit) {
    prefetch_.clear(args_.head_dim * static_cast<int64_t>(sizeof(T)));
    prefetch_.add(unit_.template rows<T>(args_.output, head), first, end);
    const int64_t next_end = std::min(end + kPanel<C>, last_);
    prefetch_.add(unit_.query_rows(head), end, next_end);
    if (packed_ < keys_) {
      const int64_t next_keys = std::min(packed_ + kPanel<C>, keys_);
      prefetch_.add(unit_.keys(), packed_, next_keys);
      prefetch_.add(unit_.values(), packed_, next_keys);
    } else if (end == last_ && next_unit_ >= 0) {
      const AttentionUnit<T> next(args_, next_unit_);
      prefetch_.add(next.query_rows(next.kv_head * next.group), 0, std::min(kPanel<C>, last_));
      prefetch_.add(next.keys(), 0, std::min(kPanel<C>, keys_));
      prefetch_.add(next.values(), 0, std::min(kPanel<C>, keys_));
    }
    const int64_t blocks = (limit + kKeys - 1) / kKeys;
    prefetch_.spread((round_up(limit, Unit::kRows) + blocks * unit_.padded_dim) / Unit::kRows);
  }

  // One step of the running softmax over the keys [key, min(key + kKeys, limit)).
  void block(int64_t first, int64_t key, int64_t limit) {
    const int64_t dim = unit_.padded_dim, depth = row_elements();
    int64_t seen[2];  // keys of this block that some query of the vector sees
    for (int j = 0; j < 2; ++j)
      seen[j] = std::clamp<int64_t>(std::min(limit, unit_.key_limit(first + (j + 1) * L)) - key, 0,
                                    kKeys);
    for (int64_t n = 0; n < seen[1]; n += Unit::kRows) {
      prefetch_.some();
      const Element* k = k_ + (key + n) * depth;
      C* to = scores_ + n * kPanel<C>;
      if (n < seen[0]) {
        Unit::template multiply<Left::row_major, Write::overwrite, 2>(
            depth, 0, k, depth, q_transposed_, kPanel<C>, to, kPanel<C>);
      } else {
        Unit::template multiply<Left::row_major, Write::overwrite, 1>(
            depth, 0, k, depth, q_transposed_ + L, kPanel<C>, to + L, kPanel<C>);
      }
    }
    for (int j = 0; j < 2; ++j) softmax(j, unit_.start + first + j * L, key, seen[j]);
    if (key == 0) {
      mix<Write::overwrite>(key, seen);
      return;
    }
    for (int64_t d = 0; d < dim; ++d) {
      for (int j = 0; j < 2; ++j) {
        C* at = o_transposed_ + d * kPanel<C> + j * L;
        store(at, load(at) * rescale_[j]);
      }
    }
    mix<Write::accumulate>(key, seen);
  }

  // o_transposed_ (+)= V^T weights
  template <Write kWrite>
  void mix(int64_t key, const int64_t* seen) {
    const int64_t dim = unit_.padded_dim;
    const int64_t both = weight_rows(seen[0]), last = weight_rows(seen[1]);
    const auto* weights = reinterpret_cast<const Element*>(scores_);
    for (int64_t d = 0; d < dim; d += Unit::kRows) {
      prefetch_.some();
      C* to = o_transposed_ + d * kPanel<C>;
      if constexpr (Unit::kLeftByRow) {
        const int64_t width = padded_keys_ / kDepth;
        Unit::template multiply<Left::row_major, kWrite, 2>(
            both, last - both, v_rows_ + d * width + key / kDepth, width, weights, kPanel<C>, to,
            kPanel<C>);
      } else {
        Unit::template multiply<Left::column_major, kWrite, 2>(
            both, last - both, v_ + key / kDepth * dim + d, dim, weights, kPanel<C>, to, kPanel<C>);
      }
    }
  }

  // Rows of elements that the weights of `keys` keys fill.
  static int64_t weight_rows(int64_t keys) {
    return round_up(keys, Unit::kDepthStep * kDepth) / kDepth;
  }

  // Turns one vector-wide column of scores into weights, as right operands of the next product;
  // updates its running maximum and sum. Lane 0 is the query at position `first`.
  void softmax(int j, int64_t first, int64_t key, int64_t count) {
    C* column = scores_ + j * L;
    const C scale = static_cast<C>(args_.scale * kLog2E);  // weights are powers of 2
    // Keys that all of the vector's queries see come first.
    const int64_t plain = args_.causal ? std::clamp<int64_t>(first + 1 - key, 0, count) : count;
    const Vec<C> hidden = broadcast(static_cast<C>(kHidden));
    for (int64_t n = plain; n < count; ++n) {
      C* at = column + n * kPanel<C>;
      store(at, hide_later_keys(load(at), first, key + n, static_cast<C>(kHidden)));
    }
    Vec<C> even = hidden, odd = hidden;  // two chains: a maximum has to wait for the one before
    int64_t n = 0;
    for (; n + 1 < count; n += 2) {
      even = max<C>(even, load(column + n * kPanel<C>));
      odd = max<C>(odd, load(column + (n + 1) * kPanel<C>));
    }
    if (n < count) even = max<C>(even, load(column + n * kPanel<C>));
    const Vec<C> largest = max<C>(max_[j], max<C>(even, odd) * scale);
    rescale_[j] = exp2(max_[j] - largest);
    max_[j] = largest;
    Vec<C> sum = sum_[j] * rescale_[j];
    if (args_.addresses) {
      const uint32_t* keys = keys32_ + j * L;
      weigh(column, count, [&](int64_t i) {
        const Vec<C> weight = exp2(load(column + i * kPanel<C>) * scale - largest);
        sum += weight;
        return weight * dropout_factors(args_.mask, keys, static_cast<uint32_t>(key + i), C{});
      });
    } else {
      weigh(column, count, [&](int64_t i) {
        const Vec<C> weight = exp2(load(column + i * kPanel<C>) * scale - largest);
        sum += weight;
        return weight;
      });
    }
    sum_[j] = sum;
  }

  // Puts the weights of `count` keys in the place of the scores, in pairs where the operands are;
  // zeros after them where the products read on.
  template <class F>
  static void weigh(C* column, int64_t count, F&& weight) {
    if constexpr (kDepth == 1) {
      for (int64_t n = 0; n < count; ++n) store(column + n * kPanel<C>, weight(n));
    } else {
      auto* to = reinterpret_cast<Element*>(column);
      int64_t n = 0;
      for (; n + 1 < count; n += 2, to += kPanel<C>) {
        const Vec<C> first = weight(n);
        store(to, Operands::along_column(first, weight(n + 1)));
      }
      if (n < count) {
        store(to, Operands::along_column(weight(n), Vec<C>{}));
        to += kPanel<C>;
      }
      auto* end = reinterpret_cast<Element*>(column) + weight_rows(count) * kPanel<C>;
      for (; to < end; to += kPanel<C>) store(to, Vec<Element>{});
    }
  }

  const AttentionArgs& args_;
  AttentionUnit<T> unit_;
  int64_t first_, last_, keys_, padded_keys_;
  int64_t next_unit_;          // that this thread will probably do next, or -1
  int64_t packed_ = 0;         // keys that have been packed
  Element *k_, *v_;            // [padded_keys, dim] numbers: k by row, v by column
  Element* v_rows_ = nullptr;  // v_ transposed: [dim, padded_keys] numbers
  Element* q_;                 // [kPanel, row_elements]
  Element* q_transposed_;      // [row_elements, kPanel]
  C* o_;                       // [kPanel, dim]
  C* o_transposed_;            // [dim, kPanel]
  C* scores_;                  // [kKeys, kPanel]
  C* spare_;
  RowPrefetch prefetch_;
  Vec<C> max_[2], sum_[2], rescale_[2];
  alignas(kVectorBytes) uint32_t keys32_[kPanel<C>] = {};
};

template <class T, class Unit>
void forward(const AttentionArgs& a) {
  using C = Compute<T>;
  const int64_t units = a.batch * a.kv_heads, panels = (a.queries + kPanel<C> - 1) / kPanel<C>;
  if (units == 0 || panels == 0) return;
  // Cut the queries of a unit only as far as the threads need it: each slice packs K and V again.
  const int threads = threads_for(units * a.queries * a.keys * a.head_dim);
  const int64_t slices = std::clamp<int64_t>((4 * threads + units - 1) / units, 1, panels);
  const int64_t per_slice = (panels + slices - 1) / slices * kPanel<C>;
  const Scratch<C> scratch(threads, Forward<T, Unit>::scratch(a));
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (int64_t i = 0; i < units * slices; ++i) {
    const int64_t slice = slices - 1 - i / units;  // the longest (causal) first
    const int64_t first = slice * per_slice;
    if (first < a.queries)
      Forward<T, Unit>(a, i % units, first, first + per_slice,
                       slices == 1 && i + threads < units ? i + threads : -1,
                       scratch.of_this_thread())
          .run();
  }
}

// The rotary tables end where the caller has them end.
void check_starts(const AttentionArgs& a) {
  for (int64_t b = 0; a.starts && b < a.batch; ++b) {
    const int64_t start = a.starts[b];
    const int64_t rows =
        a.query_lengths ? std::clamp<int64_t>(a.query_lengths[b], 0, a.queries) : a.queries;
    check(start >= 0, "attention: the queries of sample {} begin at position {}", b, start);
    check(!a.cosines || start + rows <= a.positions,
          "attention: {} queries of sample {} begin at position {} of {}", rows, b, start,
          a.positions);
  }
}

}  // namespace

void launch(CpuStream&, const AttentionArgs& a) {
  check_starts(a);
  if (goes_row_by_row(a)) {
    attend_row_by_row(a);
    return;
  }
  visit_floating(a.dtype, [&](auto type) {
    using T = decltype(type);
    on_product_unit<T>([&](auto unit) { forward<T, decltype(unit)>(a); });
  });
}

}  // namespace adagate
