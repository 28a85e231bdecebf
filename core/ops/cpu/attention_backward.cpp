// Blockwise attention, backward, on the CPU. The weights are computed again from q, k and the saved
// log-sum-exp, so nothing of size [sequence, sequence] is kept. One unit is a key-value head of one
// sample; its K, V, dK and dV stay packed in the caches while tiles of kPanels * kPanel queries
// pass by: five products per (queries, keys) tile, 10 * head_dim operations per score. Scores above
// the diagonal are left out by vectors of queries. With too few units for the threads, dQ is made
// by slices of queries and dK, dV by slices of keys (seven products instead of five). Every sum has
// one owner and one order in both ways, so the result is the same to the last bit and does not
// depend on the number of threads.
#include "core/base/threads.h"
#include "core/ops/attention.h"
#include "core/ops/cpu/attention_tiles.h"

namespace adagate {
namespace {

constexpr int64_t kKeys = 64;   // keys per block
constexpr int64_t kPanels = 2;  // panels of queries per tile
template <class C>
constexpr int64_t kTile = kPanels* kPanel<C>;

// Which gradients a piece of work makes, for which queries and keys.
struct Range {
  int64_t first_query, last_query, first_key, last_key;
  bool want_dq, want_dkv;
};

template <class T, class Unit>
class Backward {
 public:
  using C = Compute<T>;
  using Operands = typename OperandsOf<T>::type;
  using Element = typename Operands::Element;
  static constexpr int kDepth = Operands::kDepth;
  static constexpr int64_t L = kLanes<C>;

  Backward(const AttentionBackwardArgs& args, int64_t unit, const Range& range, int64_t next_unit,
           typename Scratch<C>::Part scratch)
      : grad_(args),
        args_(args.forward),
        unit_(args.forward, unit),
        range_(range),
        last_key_(
            std::min(range.last_key, unit_.key_limit(std::min(range.last_query, unit_.queries)))),
        keys_(std::max<int64_t>(0, last_key_ - range.first_key)),
        padded_keys_(round_up(keys_, kKeyStep)),
        next_unit_(next_unit) {
    const int64_t dim = unit_.padded_dim, width = row_elements();
    auto elements = [&](int64_t n) { return scratch.template take<Element>(n); };
    // Another form of an operand; the operand itself where its forms are the same.
    auto other_form = [&](Element* of, int64_t n) { return kDepth == 1 ? of : elements(n); };
    k_ = elements(padded_keys_ * width);
    k_columns_ = other_form(k_, padded_keys_ * width);
    if (Unit::kLeftByRow) k_transposed_ = elements(padded_keys_ * width);
    v_ = elements(padded_keys_ * width);
    if (range.want_dkv) {
      dk_ = scratch.take(padded_keys_ * dim);
      dv_ = scratch.take(padded_keys_ * dim);
    }
    q_ = elements(kTile<C> * width);
    q_columns_ = other_form(q_, kTile<C> * width);
    q_transposed_ = elements(kTile<C> * width);
    dout_ = elements(kTile<C> * width);
    dout_columns_ = other_form(dout_, kTile<C> * width);
    dout_transposed_ = elements(kTile<C> * width);
    dq_transposed_ = scratch.take(kTile<C> * dim);
    dq_ = scratch.take(kPanel<C> * dim);
    weights_ = scratch.take(kKeys * kStride);
    dscores_ = scratch.take(kKeys * kStride);
    weight_rows_ = other_form(reinterpret_cast<Element*>(weights_), kKeys * kTile<C> / kDepth);
    dscore_rows_ = other_form(reinterpret_cast<Element*>(dscores_), kKeys * kTile<C> / kDepth);
    dscore_columns_ = other_form(reinterpret_cast<Element*>(dscores_), kKeys * kTile<C> / kDepth);
    lse_ = scratch.take(kTile<C>);
    delta_ = scratch.take(kTile<C>);
    spare_ = scratch.take(2 * dim);
  }
  // Elements of scratch memory that one piece of work with so many keys takes at most.
  static int64_t scratch(const AttentionArgs& args, int64_t keys) {
    const int64_t dim = AttentionUnit<T>(args, 0).padded_dim;
    return 5 * round_up(keys, kKeyStep) * dim + 8 * kTile<C> * dim + 5 * kKeys * kTile<C> +
           2 * kTile<C> + 2 * dim;
  }

  void run() {
    [[maybe_unused]] const typename Unit::Session session;
    for (int64_t g = 0; g < unit_.group; ++g) {
      const int64_t head = unit_.kv_head * unit_.group + g;
      for (int64_t q = range_.first_query; q < range_.last_query; q += kTile<C>) tile(head, q);
    }
    if (range_.want_dkv) write_key_gradients();
  }

 private:
  // The scores' weights and gradients stand where they are computed if their forms are the same;
  // if not, only a panel of them at a time, on the way to the operands.
  static constexpr int64_t kStride = kDepth == 1 ? kTile<C> : kPanel<C>;
  // Keys are rows of some products and the depth of others.
  static constexpr int64_t kKeyStep = std::max<int64_t>(Unit::kRows, Unit::kDepthStep* kDepth);

  int64_t row_elements() const { return unit_.padded_dim / kDepth; }

  // The keys and values up to `end` that have not been packed yet.
  void pack_keys(int64_t end) {
    const int64_t dim = unit_.padded_dim, width = row_elements(), count = args_.head_dim;
    const int64_t begin = range_.first_key + packed_;
    if (end <= begin) return;
    // Products read whole steps of keys, pairs of rows stay together.
    end = std::min(last_key_, range_.first_key + round_up(end - range_.first_key, kPanel<C>));
    const auto k = unit_.keys(), v = unit_.values();
    const int64_t rows = (end == last_key_ ? padded_keys_ : end - range_.first_key) - packed_;
    const int64_t at = packed_ * width;
    pack_by_row<Operands>(k, begin, end, rows, count, dim, unit_.key_rotary(), spare_, k_ + at);
    if (kDepth > 1)
      pack_by_column<Operands>(k, begin, end, rows, count, dim, unit_.key_rotary(), spare_,
                               k_columns_ + at);
    if constexpr (Unit::kLeftByRow)
      transpose(rows / kDepth, dim, k_columns_ + at, dim, k_transposed_ + packed_ / kDepth,
                padded_keys_ / kDepth);
    pack_by_row<Operands>(v, begin, end, rows, count, dim, RotaryRows<C>{}, spare_, v_ + at);
    packed_ = end - range_.first_key;
  }

  void write_key_gradients() {
    write_key_gradient(grad_.dk, dk_, unit_.key_rotary(), static_cast<C>(args_.scale),
                       grad_.accumulate_dk);
    write_key_gradient(grad_.dv, dv_, RotaryRows<C>{}, C(1), grad_.accumulate_dv);
  }
  void write_key_gradient(const HeadsView& view, const C* sums, const RotaryRows<C>& rotary,
                          C factor, bool accumulate) {
    if (!view.data) return;
    const auto to = unit_.template rows<T>(view, unit_.kv_head);
    const int64_t begin = range_.first_key, met = begin + std::min(keys_, summed_);
    unpack_rows(sums, unit_.padded_dim, begin, met, args_.head_dim, rotary, factor, accumulate, to);
    if (accumulate) return;
    for (int64_t t = met; t < range_.last_key; ++t) std::fill_n(to.row(t), args_.head_dim, T{});
  }

  // The queries [first, first + kTile) of one head against all keys of the range.
  void tile(int64_t head, int64_t first) {
    const int64_t dim = unit_.padded_dim, end = std::min(first + kTile<C>, args_.queries);
    const int64_t real_end = std::clamp(unit_.queries, first, end);
    const auto dq = range_.want_dq ? unit_.template rows<T>(grad_.dq, head) : HeadRows<T>{};
    if (range_.want_dq && !grad_.accumulate_dq) {
      for (int64_t t = real_end; t < end; ++t) std::fill_n(dq.row(t), args_.head_dim, T{});
    }
    const int64_t limit = std::min(last_key_, unit_.key_limit(real_end));
    if (real_end == first || limit <= range_.first_key) return;
    pack_keys(limit);
    load_tile(head, first, real_end);
    expect_rows(head, first, end, limit);
    if (range_.want_dq) std::fill_n(dq_transposed_, columns_ * dim, C(0));
    for (int64_t key = range_.first_key; key < limit; key += kKeys)
      block(first, key, std::min(kKeys, limit - key));
    summed_ = std::max(summed_, round_up(limit - range_.first_key, Unit::kRows));
    if (!range_.want_dq) return;
    for (int64_t column = 0; column < columns_; column += kPanel<C>) {
      const int64_t begin = first + column;
      transpose(dim, kPanel<C>, dq_transposed_ + column * dim, kPanel<C>, dq_, dim);
      unpack_rows(dq_, dim, begin, std::min(begin + kPanel<C>, real_end), args_.head_dim,
                  unit_.query_rotary(), static_cast<C>(args_.scale), grad_.accumulate_dq, dq);
    }
  }

  // q and dO in all forms, and per query the log-sum-exp and delta = dO . O.
  void load_tile(int64_t head, int64_t first, int64_t end) {
    columns_ = round_up(end - first, kPanel<C>);
    const auto dout = unit_.template rows<const T>(grad_.doutput, head);
    const auto out = unit_.template rows<const T>(args_.output, head);
    all_forms(unit_.query_rows(head), first, end, unit_.query_rotary(), q_, q_columns_,
              q_transposed_);
    all_forms(dout, first, end, {}, dout_, dout_columns_, dout_transposed_);
    for (int64_t i = 0; i < columns_; ++i) {
      const int64_t t = first + i;
      delta_[i] = t < end ? row_product(dout.row(t), out.row(t), args_.head_dim) : C(0);
      // Lanes without a query get weight 0.
      lse_[i] = t < end ? unit_.lse(head)[t] : C(1e30);
    }
    if (args_.addresses) dropout_keys(args_, unit_.sample, head, first, end - first, keys32_);
  }

  // From the rows [first, end) of queries: right operands with the queries, or with the head's
  // dimensions, along the depth.
  void all_forms(const HeadRows<const T>& from, int64_t first, int64_t end,
                 const RotaryRows<C>& rotary, Element* rows, Element* columns,
                 Element* transposed) {
    const int64_t dim = unit_.padded_dim, width = row_elements();
    pack_by_row<Operands>(from, first, end, columns_, args_.head_dim, dim, rotary, spare_, rows);
    if (kDepth > 1)
      pack_by_column<Operands>(from, first, end, columns_, args_.head_dim, dim, rotary, spare_,
                               columns);
    for (int64_t p = 0; p < columns_; p += kPanel<C>)
      transpose(kPanel<C>, width, rows + p * width, width, transposed + p * width, kPanel<C>);
  }

  // Has the rows that are read next, and those that are written after this tile, fetched during its
  // products.
  void expect_rows(int64_t head, int64_t first, int64_t end, int64_t limit) {
    prefetch_.clear(args_.head_dim * static_cast<int64_t>(sizeof(T)));
    if (range_.want_dq) prefetch_.add(unit_.template rows<T>(grad_.dq, head), first, end);
    if (end < range_.last_query) {
      const int64_t next_end = std::min(end + kTile<C>, range_.last_query);
      expect_queries(unit_, head, end, next_end);
      if (packed_ < keys_) {
        const int64_t next_key = range_.first_key + packed_;
        const int64_t next_keys = std::min(next_key + kTile<C>, last_key_);
        prefetch_.add(unit_.keys(), next_key, next_keys);
        prefetch_.add(unit_.values(), next_key, next_keys);
      }
    } else {
      for (const HeadsView* view : {&grad_.dk, &grad_.dv}) {
        if (range_.want_dkv && view->data)
          prefetch_.add(unit_.template rows<T>(*view, unit_.kv_head), range_.first_key, last_key_);
      }
      if (next_unit_ >= 0) {
        const AttentionUnit<T> next(args_, next_unit_);
        expect_queries(next, next.kv_head * next.group, 0, std::min(kTile<C>, args_.queries));
        prefetch_.add(next.keys(), 0, std::min(kTile<C>, args_.keys));
        prefetch_.add(next.values(), 0, std::min(kTile<C>, args_.keys));
      }
    }
    const int64_t groups = round_up(limit - range_.first_key, Unit::kRows) / Unit::kRows;
    const int64_t blocks = (limit - range_.first_key + kKeys - 1) / kKeys;
    prefetch_.spread(columns_ / kPanel<C> * (groups + blocks * unit_.padded_dim / Unit::kRows) +
                     groups);
  }
  void expect_queries(const AttentionUnit<T>& unit, int64_t head, int64_t begin, int64_t end) {
    prefetch_.add(unit.query_rows(head), begin, end);
    prefetch_.add(unit.template rows<const T>(grad_.doutput, head), begin, end);
    prefetch_.add(unit.template rows<const T>(args_.output, head), begin, end);
  }

  void block(int64_t first, int64_t key, int64_t count) {
    for (int64_t column = 0; column < columns_; column += kPanel<C>)
      panel(first + column, column, key, count);
    if (!range_.want_dkv) return;
    for (int64_t n = 0; n < count; n += Unit::kRows) {
      prefetch_.some();
      // Keys that no query has met yet: their sums begin here.
      if (key + n - range_.first_key >= summed_) {
        add_to_keys<Write::overwrite>(first, key, n);
      } else {
        add_to_keys<Write::accumulate>(first, key, n);
      }
    }
  }

  // dV and dK of the kRows keys from key + n: sums over the tile's queries that see them.
  template <Write kWrite>
  void add_to_keys(int64_t first, int64_t key, int64_t n) {
    constexpr int64_t kWidth = kTile<C> / kDepth;
    const int64_t dim = unit_.padded_dim, to = (key + n - range_.first_key) * dim;
    const int64_t earlier = key + n - (unit_.start + first);  // queries before the first key
    int64_t begin = (args_.causal ? std::max<int64_t>(0, earlier) : 0) / kDepth;
    begin -= begin % Unit::kDepthStep;  // weights of queries that don't see a key are 0
    const int64_t depth = columns_ / kDepth - begin;
    add_rows<kWrite>(depth, weight_rows_ + n * kWidth + begin, dout_columns_ + begin * dim,
                     dv_ + to);
    add_rows<kWrite>(depth, dscore_rows_ + n * kWidth + begin, q_columns_ + begin * dim, dk_ + to);
  }

  // to [kRows, dim] (+)= left [kRows, depth] right [depth, dim]
  template <Write kWrite>
  void add_rows(int64_t depth, const Element* left, const Element* right, C* to) {
    constexpr int64_t kWidth = kTile<C> / kDepth, kWide = 2 * L;
    const int64_t dim = unit_.padded_dim;
    int64_t d = 0;
    for (; d + kWide <= dim; d += kWide)
      Unit::template multiply<Left::row_major, kWrite, 2>(depth, 0, left, kWidth, right + d, dim,
                                                          to + d, dim);
    for (; d < dim; d += L)
      Unit::template multiply<Left::row_major, kWrite, 1>(depth, 0, left, kWidth, right + d, dim,
                                                          to + d, dim);
  }

  // Weights, the scores' gradients and dQ of the panel of queries from `begin`, which stand in the
  // tile's columns from `column`.
  void panel(int64_t begin, int64_t column, int64_t key, int64_t count) {
    const int64_t dim = unit_.padded_dim, width = row_elements(), place = key - range_.first_key;
    int64_t seen[2];  // keys of this block that some query of the vector sees
    for (int j = 0; j < 2; ++j)
      seen[j] = std::clamp<int64_t>(unit_.key_limit(begin + (j + 1) * L) - key, 0, count);
    const int64_t at = kDepth == 1 ? column : 0;
    for (int64_t n = 0; n < seen[1]; n += Unit::kRows) {
      prefetch_.some();
      const Element *k = k_ + (place + n) * width, *v = v_ + (place + n) * width;
      const Element *q = q_transposed_ + column * width, *dout = dout_transposed_ + column * width;
      C *scores = weights_ + n * kStride + at, *dweights = dscores_ + n * kStride + at;
      if (n < seen[0]) {
        Unit::template multiply<Left::row_major, Write::overwrite, 2>(width, 0, k, width, q,
                                                                      kPanel<C>, scores, kStride);
        Unit::template multiply<Left::row_major, Write::overwrite, 2>(width, 0, v, width, dout,
                                                                      kPanel<C>, dweights, kStride);
      } else {
        Unit::template multiply<Left::row_major, Write::overwrite, 1>(
            width, 0, k, width, q + L, kPanel<C>, scores + L, kStride);
        Unit::template multiply<Left::row_major, Write::overwrite, 1>(
            width, 0, v, width, dout + L, kPanel<C>, dweights + L, kStride);
      }
    }
    softmax_gradient(begin, column, key, seen);
    if (!range_.want_dq || seen[1] == 0) return;
    constexpr int64_t kStep = Unit::kDepthStep * kDepth;
    const int64_t both = round_up(seen[0], kStep) / kDepth;
    const int64_t last = round_up(seen[1], kStep) / kDepth;
    for (int64_t d = 0; d < dim; d += Unit::kRows) {
      prefetch_.some();
      C* to = dq_transposed_ + column * dim + d * kPanel<C>;
      if constexpr (Unit::kLeftByRow) {
        const int64_t keys = padded_keys_ / kDepth;
        Unit::template multiply<Left::row_major, Write::accumulate, 2>(
            both, last - both, k_transposed_ + d * keys + place / kDepth, keys,
            dscore_columns_ + column, kTile<C>, to, kPanel<C>);
      } else {
        Unit::template multiply<Left::column_major, Write::accumulate, 2>(
            both, last - both, k_columns_ + place * width + d, dim, dscore_columns_ + column,
            kTile<C>, to, kPanel<C>);
      }
    }
  }

  // What the elementwise steps need of one vector of queries.
  struct Queries {
    int64_t first;  // position of lane 0
    Vec<C> lse, delta;
    const uint32_t* keys32;
    C *weights, *dscores;  // its column of the scores and of the weights' gradients
  };
  struct Gradients {
    Vec<C> weight, dscore;
  };

  // Weights P = 2^(s - lse), then dropped out; dS = P * (dP - delta).
  template <bool kDiagonal>
  Gradients gradients(const Queries& q, int64_t key, int64_t n, C scale) const {
    Vec<C> weight = exp2(load(q.weights + n * kStride) * scale - q.lse);
    if (kDiagonal) weight = hide_later_keys(weight, q.first, key + n, C(0));
    Vec<C> dweight = load(q.dscores + n * kStride);
    if (!args_.addresses) return {weight, weight * (dweight - q.delta)};
    const Vec<C> factor =
        dropout_factors(args_.mask, q.keys32, static_cast<uint32_t>(key + n), C{});
    return {weight * factor, weight * (dweight * factor - q.delta)};
  }

  // For a panel: operands of weights and of the scores' gradients, of `seen` keys for each vector,
  // zero from there to the end of the products' rows.
  void softmax_gradient(int64_t begin, int64_t column, int64_t key, const int64_t* seen) {
    const C scale = static_cast<C>(args_.scale * kLog2E);
    const int64_t at = kDepth == 1 ? column : 0;
    Queries q[2];
    int64_t plain[2];  // keys that all of the vector's queries see
    for (int j = 0; j < 2; ++j) {
      const int64_t i = column + j * L, first = unit_.start + begin + j * L;
      q[j] = {first,       load(lse_ + i),        load(delta_ + i),
              keys32_ + i, weights_ + at + j * L, dscores_ + at + j * L};
      plain[j] = args_.causal ? std::clamp<int64_t>(first + 1 - key, 0, seen[j]) : seen[j];
    }
    if constexpr (kDepth == 1) {
      for (int j = 0; j < 2; ++j) {
        int64_t n = 0;
        auto put = [&](Gradients g) {
          store(q[j].weights + n * kStride, g.weight);
          store(q[j].dscores + n * kStride, g.dscore);
        };
        for (; n < plain[j]; ++n) put(gradients<false>(q[j], key, n, scale));
        for (; n < seen[j]; ++n) put(gradients<true>(q[j], key, n, scale));
        for (; n < round_up(seen[j], Unit::kRows); ++n) put(Gradients{});
      }
    } else {
      const int64_t rows = round_up(seen[1], kKeyStep);
      int64_t n = 0;
      for (; n + 1 < std::min(plain[0], plain[1]); n += 2)
        put_pairs(column, n, gradients<false>(q[0], key, n, scale),
                  gradients<false>(q[1], key, n, scale), gradients<false>(q[0], key, n + 1, scale),
                  gradients<false>(q[1], key, n + 1, scale));
      auto one = [&](int j, int64_t i) {
        if (i < plain[j]) return gradients<false>(q[j], key, i, scale);
        return i < seen[j] ? gradients<true>(q[j], key, i, scale) : Gradients{};
      };
      for (; n < rows; n += 2)
        put_pairs(column, n, one(0, n), one(1, n), one(0, n + 1), one(1, n + 1));
    }
  }

  // The keys n (a0, a1: the panel's vectors) and n + 1 (b0, b1) in the forms of the operands.
  void put_pairs(int64_t column, int64_t n, const Gradients& a0, const Gradients& a1,
                 const Gradients& b0, const Gradients& b1) {
    constexpr int64_t kWidth = kTile<C> / kDepth;
    const int64_t at = n * kWidth + column / kDepth;
    store(weight_rows_ + at, Operands::along_row(a0.weight, a1.weight));
    store(weight_rows_ + at + kWidth, Operands::along_row(b0.weight, b1.weight));
    store(dscore_rows_ + at, Operands::along_row(a0.dscore, a1.dscore));
    store(dscore_rows_ + at + kWidth, Operands::along_row(b0.dscore, b1.dscore));
    Element* columns = dscore_columns_ + n / kDepth * kTile<C> + column;
    store(columns, Operands::along_column(a0.dscore, b0.dscore));
    store(columns + L, Operands::along_column(a1.dscore, b1.dscore));
  }

  const AttentionBackwardArgs& grad_;
  const AttentionArgs& args_;
  AttentionUnit<T> unit_;
  Range range_;
  int64_t last_key_, keys_, padded_keys_;
  int64_t next_unit_;    // that this thread will probably do next, or -1
  int64_t packed_ = 0;   // keys of the range that have been packed
  int64_t summed_ = 0;   // keys of the range whose gradients have begun
  int64_t columns_ = 0;  // of the tile that are in use: queries, rounded up to panels
  // Operands that multiply along the head's dimensions stand by row, the others by column.
  Element *k_, *k_columns_, *v_;                     // [padded_keys, dim] numbers
  Element* k_transposed_ = nullptr;                  // k_columns_ transposed
  C *dk_ = nullptr, *dv_ = nullptr;                  // [padded_keys, dim]
  Element *q_, *q_columns_, *dout_, *dout_columns_;  // [kTile, dim] numbers
  Element *q_transposed_, *dout_transposed_;         // [kPanels, row_elements, kPanel]
  C *dq_transposed_, *dq_;                           // [kPanels, dim, kPanel], [kPanel, dim]
  C *weights_, *dscores_;                            // [kKeys, kStride]
  Element *weight_rows_, *dscore_rows_;              // [kKeys, kTile] numbers
  Element* dscore_columns_;
  C *lse_, *delta_;  // [kTile]
  C* spare_;
  RowPrefetch prefetch_;
  alignas(kVectorBytes) uint32_t keys32_[kTile<C>] = {};
};

// How one side, queries or keys, is cut among the threads.
struct Slices {
  int64_t count, step;
};

// Slices of whole tiles. kTile is a multiple of kKeys.
template <class C>
Slices slices_of(int64_t rows, int64_t units, int threads) {
  const int64_t tiles = std::max<int64_t>(1, (rows + kTile<C> - 1) / kTile<C>);
  const int64_t count = std::clamp<int64_t>((6 * threads + units - 1) / units, 1, tiles);
  return {count, (tiles + count - 1) / count * kTile<C>};
}

// dQ by slices of queries, dK and dV by slices of keys.
template <class T, class Unit>
void backward_by_slices(const AttentionBackwardArgs& args, const Range& whole, int threads,
                        const Scratch<Compute<T>>& scratch) {
  using C = Compute<T>;
  const AttentionArgs& a = args.forward;
  const int64_t units = a.batch * a.kv_heads;
  const Slices queries = slices_of<C>(a.queries, units, threads);
  const Slices keys = slices_of<C>(a.keys, units, threads);
  const int64_t key_step = round_up(keys.step, kKeys), slices = std::max(queries.count, keys.count);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (int64_t i = 0; i < 2 * units * slices; ++i) {
    const int64_t unit = i / 2 % units, slice = i / 2 / units;
    Range range = whole;
    range.want_dq = whole.want_dq && i % 2 == 0 && slice < queries.count;
    range.want_dkv = whole.want_dkv && i % 2 != 0 && slice < keys.count;
    if (range.want_dq) {  // the longest (causal) first
      range.first_query = (queries.count - 1 - slice) * queries.step;
      range.last_query = std::min(range.first_query + queries.step, a.queries);
    } else if (range.want_dkv) {
      range.first_key = slice * key_step;
      range.last_key = std::min(range.first_key + key_step, a.keys);
    } else {
      continue;
    }
    if (range.want_dq ? range.first_query < a.queries : range.first_key < a.keys)
      Backward<T, Unit>(args, unit, range, -1, scratch.of_this_thread()).run();
  }
}

template <class T, class Unit>
void backward(const AttentionBackwardArgs& args) {
  using C = Compute<T>;
  const AttentionArgs& a = args.forward;
  const int64_t units = a.batch * a.kv_heads;
  if (units == 0) return;
  const int threads = threads_for(units * a.queries * a.keys * a.head_dim);
  const double whole = static_cast<double>((units + threads - 1) / threads);
  const double sliced = 1.4 * static_cast<double>(units) / static_cast<double>(threads);
  const Range all{0, a.queries, 0, a.keys, args.dq.data != nullptr, args.dk.data || args.dv.data};
  const Scratch<C> scratch(threads, Backward<T, Unit>::scratch(a, a.keys));
  if (whole > sliced && std::max(a.queries, a.keys) >= 2 * kTile<C>) {
    backward_by_slices<T, Unit>(args, all, threads, scratch);
    return;
  }
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (int64_t unit = 0; unit < units; ++unit)
    Backward<T, Unit>(args, unit, all, unit + threads < units ? unit + threads : -1,
                      scratch.of_this_thread())
        .run();
}

}  // namespace

void launch(CpuStream&, const AttentionBackwardArgs& a) {
  visit_floating(a.forward.dtype, [&](auto type) {
    using T = decltype(type);
    on_product_unit<T>([&](auto unit) { backward<T, decltype(unit)>(a); });
  });
}

}  // namespace adagate
