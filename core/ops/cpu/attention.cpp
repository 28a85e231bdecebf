// Blockwise attention, forward, on the CPU. One unit of work is a slice of the queries of all heads
// that share a key-value head of one sample: K and V are packed once per unit (rotated, in the type
// computed in) and stay in the second-level cache. Scores are kept as [keys, queries] in tiles of
// kKeys x kPanel that fit the first level; both products run from registers, so the arithmetic,
// 4 * head_dim operations per score, dominates the bytes, which are read and written once.
// A query's result does not depend on the slicing, hence not on the number of threads.
#include "core/ops/attention.h"

#include "core/ops/cpu/attention_tiles.h"

namespace adagate {
namespace {

constexpr int64_t kKeys = 128;     // keys per block
constexpr double kHidden = -1e30;  // score of a key that is not seen: its weight becomes 0

template <class T>
class Forward {
 public:
  using C = Compute<T>;
  using Operands = typename OperandsOf<T>::type;
  using Element = typename Operands::Element;

  Forward(const AttentionArgs& args, int64_t unit, int64_t first_query, int64_t last_query)
      : args_(args),
        unit_(args, unit),
        first_(first_query),
        last_(std::min(last_query, args.sequence)),
        keys_(std::max<int64_t>(0, unit_.key_limit(last_))),
        padded_keys_(round_up(keys_, kMicroRows)),
        scratch_(2 * padded_keys_ * unit_.padded_dim + 3 * kPanel<C> * unit_.padded_dim +
                 kKeys * kPanel<C>) {
    const int64_t dim = unit_.padded_dim;
    k_ = scratch_.template take<Element>(padded_keys_ * dim);
    v_ = scratch_.template take<Element>(padded_keys_ * dim);
    rows_ = scratch_.take(kPanel<C> * dim);
    q_transposed_ = scratch_.template take<Element>(kPanel<C> * dim);
    o_transposed_ = scratch_.take(kPanel<C> * dim);
    scores_ = scratch_.take(kKeys * kPanel<C>);
  }

  void run() {
    const T* qkv = static_cast<const T*>(args_.qkv);
    const int64_t dim = unit_.padded_dim;
    C* k = reinterpret_cast<C*>(k_);  // packed, then turned into operands where it stands
    C* v = reinterpret_cast<C*>(v_);
    pack_rows(unit_.k_rows(qkv), 0, keys_, padded_keys_, args_.head_dim, dim, unit_.rotary, k);
    pack_rows(unit_.v_rows(qkv), 0, keys_, padded_keys_, args_.head_dim, dim, {}, v);
    Operands::by_row(padded_keys_, dim, k, dim, k_, row_elements());
    Operands::by_column(padded_keys_, dim, v, dim, v_, dim);
    for (int64_t g = 0; g < unit_.group; ++g) {
      const int64_t head = unit_.kv_head * unit_.group + g;
      for (int64_t q = first_; q < last_; q += kPanel<C>) panel(head, q);
    }
  }

 private:
  // The queries [first, first + kPanel) of one head.
  void panel(int64_t head, int64_t first) {
    const int64_t dim = unit_.padded_dim, end = std::min(first + kPanel<C>, args_.sequence);
    const int64_t real_end = std::clamp(unit_.seen, first, end);  // rows past it are zero
    const int64_t limit = unit_.key_limit(real_end);
    auto output = unit_.output_rows(static_cast<T*>(args_.output), head);
    C* lse = unit_.lse(head);
    for (int64_t t = real_end; t < end; ++t) {
      std::fill_n(output.row(t), args_.head_dim, T{});
      lse[t] = C(0);
    }
    if (real_end == first) return;
    pack_rows(unit_.q_rows(static_cast<const T*>(args_.qkv), head), first, real_end, kPanel<C>,
              args_.head_dim, dim, unit_.rotary, rows_);
    auto* q = reinterpret_cast<Element*>(rows_);
    Operands::by_row(kPanel<C>, dim, rows_, dim, q, row_elements());
    transpose(kPanel<C>, row_elements(), q, row_elements(), q_transposed_, kPanel<C>);
    if (args_.row_ids) dropout_keys(args_, unit_.sample, head, first, real_end - first, keys32_);

    for (int j = 0; j < 2; ++j) {
      max_[j] = broadcast(static_cast<C>(kHidden));
      sum_[j] = Vec<C>{};
    }
    for (int64_t key = 0; key < limit; key += kKeys)
      block(first, key, std::min(kKeys, limit - key));

    for (int j = 0; j < 2; ++j) {
      const Vec<C> inverse = C(1) / sum_[j];
      for (int64_t d = 0; d < dim; ++d) {
        C* at = o_transposed_ + d * kPanel<C> + j * kLanes<C>;
        store(at, load(at) * inverse);
      }
      for (int i = 0; i < kLanes<C>; ++i) {
        const int64_t t = first + j * kLanes<C> + i;
        if (t < real_end) lse[t] = max_[j][i] + std::log2(sum_[j][i]);
      }
    }
    transpose(dim, kPanel<C>, o_transposed_, kPanel<C>, rows_, dim);
    unpack_rows(rows_, dim, first, real_end, args_.head_dim, RotaryRows<C>{}, C(1), false, output);
  }

  // One step of the running softmax over keys [key, key + count).
  void block(int64_t first, int64_t key, int64_t count) {
    constexpr int kDepth = Operands::kDepth;
    const int64_t dim = unit_.padded_dim, depth = row_elements();
    tile_product<Left::row_major, Write::overwrite>(round_up(count, kMicroRows), kPanel<C>, depth,
                                                    k_ + key * depth, depth, q_transposed_,
                                                    kPanel<C>, scores_, kPanel<C>);
    for (int j = 0; j < 2; ++j) softmax(j, first + j * kLanes<C>, key, count);
    const int64_t rows = round_up(count, kDepth);
    std::fill_n(scores_ + count * kPanel<C>, (rows - count) * kPanel<C>, C(0));
    auto* weights = reinterpret_cast<Element*>(scores_);
    Operands::by_column(rows, kPanel<C>, scores_, kPanel<C>, weights, kPanel<C>);
    const Element* v = v_ + key / kDepth * dim;
    if (key == 0) {
      tile_product<Left::column_major, Write::overwrite>(
          dim, kPanel<C>, rows / kDepth, v, dim, weights, kPanel<C>, o_transposed_, kPanel<C>);
      return;
    }
    for (int64_t d = 0; d < dim; ++d) {
      for (int j = 0; j < 2; ++j) {
        C* at = o_transposed_ + d * kPanel<C> + j * kLanes<C>;
        store(at, load(at) * rescale_[j]);
      }
    }
    tile_product<Left::column_major, Write::accumulate>(
        dim, kPanel<C>, rows / kDepth, v, dim, weights, kPanel<C>, o_transposed_, kPanel<C>);
  }

  int64_t row_elements() const { return unit_.padded_dim / Operands::kDepth; }

  // Turns one vector-wide column of scores into weights; updates its running maximum and sum.
  void softmax(int j, int64_t first, int64_t key, int64_t count) {
    C* column = scores_ + j * kLanes<C>;
    const bool diagonal = args_.causal && key + count - 1 > first;
    const C scale = static_cast<C>(args_.scale * kLog2E);  // weights are powers of 2
    Vec<C> largest = max_[j];
    if (diagonal) {
      for (int64_t n = 0; n < count; ++n) {
        C* at = column + n * kPanel<C>;
        store(at, hide_later_keys(load(at), first, key + n, static_cast<C>(kHidden)));
      }
    }
    for (int64_t n = 0; n < count; ++n)
      largest = max<C>(largest, load(column + n * kPanel<C>) * scale);
    rescale_[j] = exp2(max_[j] - largest);
    max_[j] = largest;
    Vec<C> sum = sum_[j] * rescale_[j];
    if (args_.row_ids) {
      for (int64_t n = 0; n < count; ++n) {
        C* at = column + n * kPanel<C>;
        const Vec<C> weight = exp2(load(at) * scale - largest);
        sum += weight;
        store(at, weight * dropout_factors(args_.mask, keys32_ + j * kLanes<C>,
                                           static_cast<uint32_t>(key + n), C{}));
      }
    } else {
      for (int64_t n = 0; n < count; ++n) {
        C* at = column + n * kPanel<C>;
        const Vec<C> weight = exp2(load(at) * scale - largest);
        sum += weight;
        store(at, weight);
      }
    }
    sum_[j] = sum;
  }

  const AttentionArgs& args_;
  AttentionUnit<T> unit_;
  int64_t first_, last_, keys_, padded_keys_;
  Scratch<C> scratch_;
  Element *k_, *v_;        // [padded_keys, dim] numbers: k by row, v by column
  C* rows_;                // [kPanel, dim]
  Element* q_transposed_;  // [row_elements, kPanel]
  C* o_transposed_;        // [dim, kPanel]
  C* scores_;              // [kKeys, kPanel]
  Vec<C> max_[2], sum_[2], rescale_[2];
  alignas(kVectorBytes) uint32_t keys32_[kPanel<C>] = {};
};

template <class T>
void forward(const AttentionArgs& a) {
  using C = Compute<T>;
  const int64_t units = a.batch * a.kv_heads, panels = (a.sequence + kPanel<C> - 1) / kPanel<C>;
  if (units == 0 || panels == 0) return;
  // Cut the queries of a unit only as far as the threads need it: each slice packs K and V again.
  const int64_t wanted = 4 * static_cast<int64_t>(available_threads());
  const int64_t slices = std::clamp<int64_t>((wanted + units - 1) / units, 1, panels);
  const int64_t per_slice = (panels + slices - 1) / slices * kPanel<C>;
#pragma omp parallel for schedule(dynamic)
  for (int64_t i = 0; i < units * slices; ++i) {
    const int64_t slice = slices - 1 - i / units;  // the longest (causal) first
    const int64_t first = slice * per_slice;
    if (first < a.sequence) Forward<T>(a, i % units, first, first + per_slice).run();
  }
}

}  // namespace

void launch(CpuStream&, const AttentionArgs& a) {
  visit_floating(a.dtype, [&](auto type) { forward<decltype(type)>(a); });
}

}  // namespace adagate
