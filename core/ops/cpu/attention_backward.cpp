// Blockwise attention, backward, on the CPU. The weights are computed again from q, k and the saved
// log-sum-exp, so nothing of size [sequence, sequence] is kept. One unit is a key-value head of one
// sample; its K, V, dK and dV stay packed in the caches while tiles of kPanels * kPanel queries
// pass by: five products per (queries, keys) tile, 10 * head_dim operations per score. With too few
// units for the threads, dQ is made by slices of queries and dK, dV by slices of keys (seven
// products instead of five). Every sum has one owner and one order in both ways, so the result is
// the same to the last bit and does not depend on the number of threads.
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

template <class T>
class Backward {
 public:
  using C = Compute<T>;
  using Operands = typename OperandsOf<T>::type;
  using Element = typename Operands::Element;
  static constexpr int kDepth = Operands::kDepth;

  Backward(const AttentionBackwardArgs& args, int64_t unit, const Range& range)
      : grad_(args),
        args_(args.forward),
        unit_(args.forward, unit),
        range_(range),
        last_key_(std::min(range.last_key, unit_.key_limit(range.last_query))),
        keys_(std::max<int64_t>(0, last_key_ - range.first_key)),
        padded_keys_(round_up(keys_, kMicroRows)),
        scratch_(6 * padded_keys_ * unit_.padded_dim + 8 * kTile<C> * unit_.padded_dim +
                 4 * kKeys * kTile<C> + 2 * kTile<C>) {
    const int64_t dim = unit_.padded_dim;
    k_ = scratch_.take(padded_keys_ * dim);
    v_ = scratch_.take(padded_keys_ * dim);
    k_columns_ = other_form(k_, padded_keys_ * dim);
    if (range.want_dkv) {
      dk_ = scratch_.take(padded_keys_ * dim);
      dv_ = scratch_.take(padded_keys_ * dim);
    }
    q_ = scratch_.take(kTile<C> * dim);
    dout_ = scratch_.take(kTile<C> * dim);
    out_ = scratch_.take(kTile<C> * dim);
    q_columns_ = other_form(q_, kTile<C> * dim);
    dout_columns_ = other_form(dout_, kTile<C> * dim);
    q_transposed_ = scratch_.template take<Element>(kTile<C> * dim / kDepth);
    dout_transposed_ = scratch_.template take<Element>(kTile<C> * dim / kDepth);
    dq_transposed_ = scratch_.take(kTile<C> * dim);
    weights_ = scratch_.take(kKeys * kTile<C>);
    dscores_ = scratch_.take(kKeys * kTile<C>);
    weight_rows_ = other_form(weights_, kKeys * kTile<C>);
    dscore_rows_ = other_form(dscores_, kKeys * kTile<C>);
    dscore_columns_ = other_form(dscores_, kKeys * kTile<C>);
    lse_ = scratch_.take(kTile<C>);
    delta_ = scratch_.take(kTile<C>);
  }

  void run() {
    const T* qkv = static_cast<const T*>(args_.qkv);
    const int64_t dim = unit_.padded_dim, k0 = range_.first_key, k1 = k0 + keys_;
    pack_rows(unit_.k_rows(qkv), k0, k1, padded_keys_, args_.head_dim, dim, unit_.rotary, k_);
    pack_rows(unit_.v_rows(qkv), k0, k1, padded_keys_, args_.head_dim, dim, {}, v_);
    Operands::by_column(padded_keys_, dim, k_, dim, k_columns_, dim);
    Operands::by_row(padded_keys_, dim, k_, dim, as_elements(k_), row_elements());
    Operands::by_row(padded_keys_, dim, v_, dim, as_elements(v_), row_elements());
    if (range_.want_dkv) {
      std::fill_n(dk_, padded_keys_ * dim, C(0));
      std::fill_n(dv_, padded_keys_ * dim, C(0));
    }
    for (int64_t g = 0; g < unit_.group; ++g) {
      const int64_t head = unit_.kv_head * unit_.group + g;
      for (int64_t q = range_.first_query; q < range_.last_query; q += kTile<C>) tile(head, q);
    }
    if (range_.want_dkv) write_key_gradients();
  }

 private:
  static Element* as_elements(C* x) { return reinterpret_cast<Element*>(x); }
  // Room for another form of a matrix; the matrix itself where its forms are the same.
  Element* other_form(C* matrix, int64_t numbers) {
    if constexpr (kDepth == 1) return matrix;
    return scratch_.template take<Element>(numbers / kDepth);
  }
  int64_t row_elements() const { return unit_.padded_dim / kDepth; }

  void write_key_gradients() {
    T* dqkv = static_cast<T*>(grad_.dqkv);
    const int64_t dim = unit_.padded_dim, k0 = range_.first_key, k1 = k0 + keys_;
    unpack_rows(dk_, dim, k0, k1, args_.head_dim, unit_.rotary, static_cast<C>(args_.scale),
                grad_.accumulate, unit_.k_rows(dqkv));
    unpack_rows(dv_, dim, k0, k1, args_.head_dim, RotaryRows<C>{}, C(1), grad_.accumulate,
                unit_.v_rows(dqkv));
    if (grad_.accumulate) return;
    for (int64_t t = k1; t < range_.last_key; ++t) {
      std::fill_n(unit_.k_rows(dqkv).row(t), args_.head_dim, T{});
      std::fill_n(unit_.v_rows(dqkv).row(t), args_.head_dim, T{});
    }
  }

  // The queries [first, first + kTile) of one head against all keys of the range.
  void tile(int64_t head, int64_t first) {
    const int64_t dim = unit_.padded_dim, end = std::min(first + kTile<C>, args_.sequence);
    const int64_t real_end = std::clamp(unit_.seen, first, end);
    auto dq = unit_.q_rows(static_cast<T*>(grad_.dqkv), head);
    if (range_.want_dq && !grad_.accumulate) {
      for (int64_t t = real_end; t < end; ++t) std::fill_n(dq.row(t), args_.head_dim, T{});
    }
    const int64_t limit = std::min(last_key_, unit_.key_limit(real_end));
    if (real_end == first || limit <= range_.first_key) return;
    load_tile(head, first, real_end);
    if (range_.want_dq) std::fill_n(dq_transposed_, columns_ * dim, C(0));
    for (int64_t key = range_.first_key; key < limit; key += kKeys)
      block(first, key, std::min(kKeys, limit - key));
    if (!range_.want_dq) return;
    for (int64_t column = 0; column < columns_; column += kPanel<C>) {
      const int64_t begin = first + column;
      transpose(dim, kPanel<C>, dq_transposed_ + column * dim, kPanel<C>, out_, dim);
      unpack_rows(out_, dim, begin, std::min(begin + kPanel<C>, real_end), args_.head_dim,
                  unit_.rotary, static_cast<C>(args_.scale), grad_.accumulate, dq);
    }
  }

  // q and dO in both orientations, and per query the log-sum-exp and delta = dO . O.
  void load_tile(int64_t head, int64_t first, int64_t end) {
    const int64_t dim = unit_.padded_dim, count = end - first;
    columns_ = round_up(count, kPanel<C>);
    pack_rows(unit_.q_rows(static_cast<const T*>(args_.qkv), head), first, end, columns_,
              args_.head_dim, dim, unit_.rotary, q_);
    pack_rows(unit_.output_rows(static_cast<const T*>(grad_.doutput), head), first, end, columns_,
              args_.head_dim, dim, {}, dout_);
    pack_rows(unit_.output_rows(static_cast<const T*>(args_.output), head), first, end, columns_,
              args_.head_dim, dim, {}, out_);
    for (int64_t i = 0; i < columns_; ++i) {
      Vec<C> product{};
      for (int64_t d = 0; d < dim; d += kLanes<C>)
        product += load(dout_ + i * dim + d) * load(out_ + i * dim + d);
      C sum = 0;
      for (int l = 0; l < kLanes<C>; ++l) sum += product[l];
      delta_[i] = sum;
      // Lanes without a query get weight 0.
      lse_[i] = i < count ? unit_.lse(head)[first + i] : C(1e30);
    }
    both_forms(q_, q_columns_, q_transposed_);
    both_forms(dout_, dout_columns_, dout_transposed_);
    if (args_.row_ids) dropout_keys(args_, unit_.sample, head, first, count, keys32_);
  }

  // From rows of queries [columns_, dim]: right operands with the queries, or with the head's
  // dimensions, along the depth.
  void both_forms(C* rows, Element* columns, Element* transposed) {
    const int64_t dim = unit_.padded_dim, width = row_elements();
    Operands::by_column(columns_, dim, rows, dim, columns, dim);
    Operands::by_row(columns_, dim, rows, dim, as_elements(rows), width);
    for (int64_t p = 0; p < columns_; p += kPanel<C>)
      transpose(kPanel<C>, width, as_elements(rows) + p * width, width, transposed + p * width,
                kPanel<C>);
  }

  void block(int64_t first, int64_t key, int64_t count) {
    const int64_t dim = unit_.padded_dim, place = key - range_.first_key;
    const int64_t rows = round_up(count, kMicroRows);
    for (int64_t column = 0; column < columns_; column += kPanel<C>)
      panel(first + column, column, key, count);
    if (!range_.want_dkv) return;
    Operands::by_row(rows, columns_, weights_, kTile<C>, weight_rows_, kTile<C> / kDepth);
    Operands::by_row(rows, columns_, dscores_, kTile<C>, dscore_rows_, kTile<C> / kDepth);
    tile_product<Left::row_major, Write::accumulate>(rows, dim, columns_ / kDepth, weight_rows_,
                                                     kTile<C> / kDepth, dout_columns_, dim,
                                                     dv_ + place * dim, dim);
    tile_product<Left::row_major, Write::accumulate>(rows, dim, columns_ / kDepth, dscore_rows_,
                                                     kTile<C> / kDepth, q_columns_, dim,
                                                     dk_ + place * dim, dim);
  }

  // Weights, the scores' gradients and dQ of the panel of queries from `begin`, which stand in the
  // tile's columns from `column`.
  void panel(int64_t begin, int64_t column, int64_t key, int64_t count) {
    const int64_t dim = unit_.padded_dim, width = row_elements(), place = key - range_.first_key;
    const int64_t rows = round_up(count, kMicroRows);
    // Keys of this block that some query of the panel sees; the others' weights are 0.
    const int64_t visible = std::clamp<int64_t>(unit_.key_limit(begin + kPanel<C>) - key, 0, count);
    const int64_t visible_rows = round_up(visible, kMicroRows);
    tile_product<Left::row_major, Write::overwrite>(
        visible_rows, kPanel<C>, width, as_elements(k_) + place * width, width,
        q_transposed_ + column * width, kPanel<C>, weights_ + column, kTile<C>);
    tile_product<Left::row_major, Write::overwrite>(
        visible_rows, kPanel<C>, width, as_elements(v_) + place * width, width,
        dout_transposed_ + column * width, kPanel<C>, dscores_ + column, kTile<C>);
    for (int64_t j = 0; j < kPanel<C>; j += kLanes<C>) {
      softmax_gradient(column + j, begin + j, key, visible);
      for (int64_t n = visible; n < rows; ++n) {
        store(weights_ + n * kTile<C> + column + j, Vec<C>{});
        store(dscores_ + n * kTile<C> + column + j, Vec<C>{});
      }
    }
    if (!range_.want_dq || visible == 0) return;
    const int64_t depth = round_up(visible, kDepth);
    Operands::by_column(depth, kPanel<C>, dscores_ + column, kTile<C>, dscore_columns_ + column,
                        kTile<C>);
    tile_product<Left::column_major, Write::accumulate>(
        dim, kPanel<C>, depth / kDepth, k_columns_ + place / kDepth * dim, dim,
        dscore_columns_ + column, kTile<C>, dq_transposed_ + column * dim, kPanel<C>);
  }

  // For one vector-wide column: weights P = 2^(s - lse), then dropped out; dS = P * (dP - delta).
  void softmax_gradient(int64_t column, int64_t first, int64_t key, int64_t count) {
    const bool diagonal = args_.causal && key + count - 1 > first;
    const Vec<C> lse = load(lse_ + column), delta = load(delta_ + column);
    const C scale = static_cast<C>(args_.scale * kLog2E);
    for (int64_t n = 0; n < count; ++n) {
      C* weight_at = weights_ + n * kTile<C> + column;
      C* dscore_at = dscores_ + n * kTile<C> + column;
      Vec<C> weight = exp2(load(weight_at) * scale - lse);
      if (diagonal) weight = hide_later_keys(weight, first, key + n, C(0));
      Vec<C> dweight = load(dscore_at);
      if (args_.row_ids) {
        const Vec<C> factor =
            dropout_factors(args_.mask, keys32_ + column, static_cast<uint32_t>(key + n), C{});
        store(weight_at, weight * factor);
        dweight *= factor;
      } else {
        store(weight_at, weight);
      }
      store(dscore_at, weight * (dweight - delta));
    }
  }

  const AttentionBackwardArgs& grad_;
  const AttentionArgs& args_;
  AttentionUnit<T> unit_;
  Range range_;
  int64_t last_key_, keys_, padded_keys_;
  Scratch<C> scratch_;
  int64_t columns_ = 0;  // of the tile that are in use: queries, rounded up to panels
  // Operands that multiply along the head's dimensions stand by row, the others by column.
  C *k_, *v_;                                 // [padded_keys, dim], by row once packed
  Element* k_columns_;                        // [padded_keys, dim] numbers
  C *dk_ = nullptr, *dv_ = nullptr;           // [padded_keys, dim]
  C *q_, *dout_, *out_;                       // [kTile, dim]
  Element *q_columns_, *dout_columns_;        // [kTile, dim] numbers
  Element *q_transposed_, *dout_transposed_;  // [kPanels, row_elements, kPanel]
  C* dq_transposed_;                          // [kPanels, dim, kPanel]
  C *weights_, *dscores_;                     // [kKeys, kTile]
  Element *weight_rows_, *dscore_rows_, *dscore_columns_;
  C *lse_, *delta_;  // [kTile]
  alignas(kVectorBytes) uint32_t keys32_[kTile<C>] = {};
};

template <class T>
void backward(const AttentionBackwardArgs& args) {
  using C = Compute<T>;
  const AttentionArgs& a = args.forward;
  const int64_t units = a.batch * a.kv_heads, length = a.sequence;
  if (units == 0 || length == 0) return;
  const int64_t threads = available_threads();
  const double whole = static_cast<double>((units + threads - 1) / threads);
  const double sliced = 1.4 * static_cast<double>(units) / static_cast<double>(threads);
  if (whole <= sliced || length < 2 * kTile<C>) {
#pragma omp parallel for schedule(dynamic)
    for (int64_t unit = 0; unit < units; ++unit)
      Backward<T>(args, unit, {0, length, 0, length, true, true}).run();
    return;
  }
  const int64_t tiles = (length + kTile<C> - 1) / kTile<C>;
  const int64_t slices = std::clamp<int64_t>((6 * threads + units - 1) / units, 1, tiles);
  const int64_t step = (tiles + slices - 1) / slices * kTile<C>;  // kTile is a multiple of kKeys
  const int64_t key_step = round_up(step, kKeys);
#pragma omp parallel for schedule(dynamic)
  for (int64_t i = 0; i < 2 * units * slices; ++i) {
    const int64_t unit = i / 2 % units, slice = i / 2 / units;
    if (i % 2 == 0) {  // dQ, the longest (causal) first
      const int64_t first = (slices - 1 - slice) * step;
      if (first < length)
        Backward<T>(args, unit, {first, std::min(first + step, length), 0, length, true, false})
            .run();
    } else {
      const int64_t first = slice * key_step;
      if (first < length)
        Backward<T>(args, unit, {0, length, first, std::min(first + key_step, length), false, true})
            .run();
    }
  }
}

}  // namespace

void launch(CpuStream&, const AttentionBackwardArgs& a) {
  visit_floating(a.forward.dtype, [&](auto type) { backward<decltype(type)>(a); });
}

}  // namespace adagate
