#include "core/ops/kv_cache.h"

#include <utility>

namespace adagate {
namespace {

// Room for `capacity` rows of each of `sequences`, filled by the kernel from `cache`.
KvCache copied(const KvCache& cache, int64_t sequences, int64_t capacity, const Tensor& from) {
  const Device device = cache.k.device();
  KvCache to{.sequences = sequences, .length = cache.length};
  const Shape shape{sequences, capacity, cache.k.cols()};
  to.k = Tensor::empty(shape, cache.k.dtype(), device);
  to.v = Tensor::empty(shape, cache.k.dtype(), device);
  to.lengths = Tensor::empty({sequences}, DType::i32, device);
  launch_on(device, CopySequencesArgs{.k = cache.k.raw(),
                                      .v = cache.v.raw(),
                                      .lengths = cache.lengths.data<int32_t>(),
                                      .from = from.data<int32_t>(),
                                      .to_k = to.k.raw(),
                                      .to_v = to.v.raw(),
                                      .to_lengths = to.lengths.data<int32_t>(),
                                      .from_sequences = cache.sequences,
                                      .from_capacity = cache.k.dim(1),
                                      .sequences = sequences,
                                      .capacity = capacity,
                                      .row_bytes = cache.k.cols() *
                                                   static_cast<int64_t>(size_of(cache.k.dtype()))});
  return to;
}

// Room of its own for `rows` more rows like those of `like`.
void make_room(KvCache& cache, int64_t rows, int64_t cols, const Tensor& like) {
  int64_t capacity = cache.k ? cache.k.dim(1) : 64;
  while (capacity < cache.length + rows) capacity *= 2;
  if (!cache.k) {
    const Shape shape{cache.sequences, capacity, cols};
    cache.k = Tensor::empty(shape, like.dtype(), like.device());
    cache.v = Tensor::empty(shape, like.dtype(), like.device());
  } else if (capacity > cache.k.dim(1) || !cache.k.unique()) {
    cache = copied(cache, cache.sequences, capacity, {});
  }
}

void check_new_rows(const KvCache& cache, const Tensor& rows, const AttentionShape& shape) {
  const int64_t cols = shape.kv_heads * shape.head_dim;
  check(shape.batch == cache.sequences, "key-value cache: rows of {} sequences for {}", shape.batch,
        cache.sequences);
  check(rows.rows() == shape.batch * shape.sequence,
        "key-value cache: {} rows for {} sequences of {}", rows.rows(), shape.batch,
        shape.sequence);
  check(!cache.k || (cache.k.cols() == cols && cache.k.dtype() == rows.dtype()),
        "key-value cache: {} columns of {} for a cache of {} columns of {}", cols,
        name_of(rows.dtype()), cache.k.cols(), name_of(cache.k.dtype()));
}

void check_counts(const char* op, const Tensor& counts, int64_t sequences) {
  check(!counts || (counts.numel() == sequences && counts.dtype() == DType::i32),
        "{}: lengths are {} {}, i32 [{}] expected", op, name_of(counts.dtype()), counts.shape(),
        sequences);
}

// Queries that stand at `starts` in the positions of the cached keys.
Tensor attend(const HeadColumns& q, const AttentionShape& shape, const KvCache& cache,
              const Tensor& lengths, const Tensor& starts) {
  const DType type = q.rows.dtype();
  const Device device = q.rows.device();
  Tensor output =
      Tensor::empty({shape.batch * shape.sequence, shape.heads * shape.head_dim}, type, device);
  AttentionArgs args = attention_args(q, {cache.k}, {cache.v}, output, cache.length, shape,
                                      {lengths, cache.lengths, starts},
                                      attention_rotary(shape, cache.length, type, device));
  args.rotate_keys = false;
  launch_on(device, args);
  return output;
}

}  // namespace

void KvCache::append(const HeadColumns& new_k, const HeadColumns& new_v,
                     const AttentionShape& shape, const Tensor& counts) {
  const int64_t cols = shape.kv_heads * shape.head_dim, rows = shape.sequence;
  const Device device = new_k.rows.device();
  check_attention_shape("key-value cache", shape);
  for (const auto& [name, columns] : {std::pair("k", &new_k), std::pair("v", &new_v)}) {
    check_new_rows(*this, columns->rows, shape);
    check_columns("key-value cache", name, *columns, cols);
  }
  check_counts("key-value cache", counts, sequences);
  make_room(*this, rows, cols, new_k.rows);
  // Queued kernels may still read the lengths before.
  Tensor after = Tensor::empty({sequences}, DType::i32, device);
  const RotaryTable rotary = attention_rotary(shape, length + rows, new_k.rows.dtype(), device);
  launch_on(device, AppendKeysArgs{.k = heads_view(new_k, sequences),
                                   .v = heads_view(new_v, sequences),
                                   .cached_k = heads_view({k}, sequences),
                                   .cached_v = heads_view({v}, sequences),
                                   .starts = lengths.data<int32_t>(),
                                   .counts = counts.data<int32_t>(),
                                   .lengths = after.data<int32_t>(),
                                   .cosines = rotary.cosines.raw(),
                                   .sines = rotary.sines.raw(),
                                   .sequences = sequences,
                                   .rows = rows,
                                   .kv_heads = shape.kv_heads,
                                   .head_dim = shape.head_dim,
                                   .dtype = new_k.rows.dtype()});
  lengths = std::move(after);
  length += rows;
}

void KvCache::reorder(const Tensor& indices) {
  check(indices && indices.dtype() == DType::i32, "key-value cache: indices are {}, i32 expected",
        name_of(indices.dtype()));
  if (!k) {
    sequences = indices.numel();
    return;
  }
  *this = copied(*this, indices.numel(), k.dim(1), indices);
}

Tensor attention_step(const Tensor& qkv, const AttentionShape& shape, KvCache& cache,
                      const Tensor& counts) {
  check_packed_qkv("attention_step", qkv, shape);
  const int64_t k = shape.heads * shape.head_dim, v = k + shape.kv_heads * shape.head_dim;
  const Tensor starts = cache.lengths;
  cache.append({qkv, k}, {qkv, v}, shape, counts);
  return attend({qkv, 0}, shape, cache, counts, starts);
}

Tensor attention_to_cache(const HeadColumns& q, const AttentionShape& shape, const KvCache& cache,
                          const Tensor& lengths) {
  check_attention_shape("attention_to_cache", shape);
  check(shape.batch == cache.sequences && q.rows.rows() == shape.batch * shape.sequence,
        "attention_to_cache: {} rows for {} sequences of {}, the cache has {}", q.rows.rows(),
        shape.batch, shape.sequence, cache.sequences);
  check_columns("attention_to_cache", "q", q, shape.heads * shape.head_dim);
  check(!cache.k || (cache.k.dtype() == q.rows.dtype() &&
                     cache.k.cols() == shape.kv_heads * shape.head_dim),
        "attention_to_cache: {} heads of {} {} for a cache of {} columns of {}", shape.kv_heads,
        shape.head_dim, name_of(q.rows.dtype()), cache.k.cols(), name_of(cache.k.dtype()));
  check_counts("attention_to_cache", lengths, shape.batch);
  return attend(q, shape, cache, lengths, {});
}

Tensor next_positions(const KvCache& cache, int64_t rows, Device device) {
  Tensor positions = Tensor::empty({cache.sequences * rows}, DType::i32, device);
  launch_on(device, NextPositionsArgs{.lengths = cache.lengths.data<int32_t>(),
                                      .positions = positions.data<int32_t>(),
                                      .sequences = cache.sequences,
                                      .rows = rows});
  return positions;
}

}  // namespace adagate
