// The rows of caches on the CPU: all of it moves bytes, each new key is rotated once.
#include "core/ops/kv_cache.h"

#include <algorithm>
#include <cstring>

#include "core/base/threads.h"
#include "core/ops/cpu/attention_tiles.h"

namespace adagate {
namespace {

int64_t rows_before(const int32_t* lengths, int64_t sequence) {
  return lengths ? lengths[sequence] : 0;
}

// New rows of one key-value head of one sequence. `spare`: C [head_dim].
template <class T>
void append(const AppendKeysArgs& a, int64_t sequence, int64_t head, Compute<T>* spare) {
  using C = Compute<T>;
  auto rows_of = [&](const HeadsView& view, auto* rows) {
    return HeadRows<std::remove_pointer_t<decltype(rows)>>{
        rows + sequence * view.sample_stride + head * a.head_dim, view.row_stride};
  };
  const auto k = rows_of(a.k, static_cast<const T*>(a.k.data));
  const auto v = rows_of(a.v, static_cast<const T*>(a.v.data));
  const auto to_k = rows_of(a.cached_k, static_cast<T*>(a.cached_k.data));
  const auto to_v = rows_of(a.cached_v, static_cast<T*>(a.cached_v.data));
  const int64_t start = rows_before(a.starts, sequence);
  RotaryRows<C> rotary{static_cast<const C*>(a.cosines), static_cast<const C*>(a.sines)};
  if (rotary.cosines) {
    rotary.cosines += start * (a.head_dim / 2);
    rotary.sines += start * (a.head_dim / 2);
  }
  const int64_t rows = a.lengths[sequence] - start;
  for (int64_t t = 0; t < rows; ++t) {
    pack_row(k, t, a.head_dim, a.head_dim, rotary, spare);
    for_each_vector<C>(a.head_dim, [&](int64_t i, auto lanes) {
      lanes.store(to_k.row(start + t) + i, lanes.load(spare + i));
    });
    std::copy_n(v.row(t), a.head_dim, to_v.row(start + t));
  }
}

template <class T>
void append_all(const AppendKeysArgs& a) {
  using C = Compute<T>;
  const int threads = threads_for(a.sequences * a.rows * a.kv_heads * a.head_dim);
  const Scratch<C> scratch(threads, a.head_dim);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t i = 0; i < a.sequences * a.kv_heads; ++i)
    append<T>(a, i / a.kv_heads, i % a.kv_heads, scratch.of_this_thread().take(a.head_dim));
}

}  // namespace

void launch(CpuStream&, const AppendKeysArgs& a) {
  for (int64_t s = 0; s < a.sequences; ++s) {
    const int64_t rows = a.counts ? std::clamp<int64_t>(a.counts[s], 0, a.rows) : a.rows;
    a.lengths[s] = static_cast<int32_t>(rows_before(a.starts, s) + rows);
  }
  visit_floating(a.dtype, [&](auto type) { append_all<decltype(type)>(a); });
}

void launch(CpuStream&, const CopySequencesArgs& a) {
  for (int64_t s = 0; a.from && s < a.sequences; ++s)
    check(a.from[s] >= 0 && a.from[s] < a.from_sequences,
          "key-value cache: sequence {} is to continue sequence {} of {}", s, a.from[s],
          a.from_sequences);
  const auto* k = static_cast<const std::byte*>(a.k);
  const auto* v = static_cast<const std::byte*>(a.v);
  auto* to_k = static_cast<std::byte*>(a.to_k);
  auto* to_v = static_cast<std::byte*>(a.to_v);
  const int threads = threads_for(a.sequences * a.from_capacity * a.row_bytes / 4);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t s = 0; s < a.sequences; ++s) {
    const int64_t from = a.from ? a.from[s] : s;
    const int64_t at = from * a.from_capacity * a.row_bytes, to = s * a.capacity * a.row_bytes;
    const auto bytes = static_cast<size_t>(a.lengths[from] * a.row_bytes);
    std::memcpy(to_k + to, k + at, bytes);
    std::memcpy(to_v + to, v + at, bytes);
    a.to_lengths[s] = a.lengths[from];
  }
}

void launch(CpuStream&, const NextPositionsArgs& a) {
  for (int64_t s = 0; s < a.sequences; ++s)
    for (int64_t t = 0; t < a.rows; ++t)
      a.positions[s * a.rows + t] = static_cast<int32_t>(rows_before(a.lengths, s) + t);
}

}  // namespace adagate
