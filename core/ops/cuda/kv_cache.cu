// The rows of caches: all of it moves bytes, each new key is rotated once.
//
// Append: a warp per new row of a sequence, through all its heads; lanes take packs of columns, of
// a rotated key those of both halves. Sequences stand in the grid's second dimension, rows past the
// real ones of a sequence end at once.
// Copies: a sequence's rows lie side by side, so that a few blocks move them as one piece of bytes.
#include "core/device/cuda/stream.h"
#include "core/ops/cuda/copy_units.h"
#include "core/ops/cuda/tiles.h"
#include "core/ops/kv_cache.h"

namespace adagate {
namespace cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostSequences = 65535;  // of the grid's second dimension

template <class P>
__device__ P* row_of(const HeadsView& view, int64_t sequence, int64_t row) {
  return static_cast<P*>(view.data) + sequence * view.sample_stride + row * view.row_stride;
}

template <class T, int kWidth>
__device__ void copy_row(const T* from, T* to, int64_t columns, int lane) {
  for (int64_t c = lane * kWidth; c < columns; c += kWarp * kWidth) {
    T values[kWidth];
    load(values, from + c);
    store(to + c, values);
  }
}

// All heads of one key, turned to `position`.
template <class T, int kWidth>
__device__ void rotate_row(const AppendKeysArgs& a, const T* from, T* to, int64_t position,
                           int lane) {
  using C = Compute<T>;
  const int half = static_cast<int>(a.head_dim / 2);
  const int pairs = half / kWidth, all = static_cast<int>(a.kv_heads) * pairs;
  const C* cosines = static_cast<const C*>(a.cosines) + position * half;
  const C* sines = static_cast<const C*>(a.sines) + position * half;
  for (int i = lane; i < all; i += kWarp) {
    const int d = i % pairs * kWidth;
    const int64_t at = i / pairs * a.head_dim + d;
    C low[kWidth], high[kWidth], cosine[kWidth], sine[kWidth], turned[kWidth];
    load(low, from + at);
    load(high, from + at + half);
    load_pieces(cosine, cosines + d);
    load_pieces(sine, sines + d);
#pragma unroll
    for (int c = 0; c < kWidth; ++c) turned[c] = low[c] * cosine[c] - high[c] * sine[c];
    store(to + at, turned);
#pragma unroll
    for (int c = 0; c < kWidth; ++c) turned[c] = high[c] * cosine[c] + low[c] * sine[c];
    store(to + at + half, turned);
  }
}

template <class T, int kWidth>
__global__ void append_keys(AppendKeysArgs a) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t columns = a.kv_heads * a.head_dim;
  for (int64_t s = blockIdx.y; s < a.sequences; s += gridDim.y) {
    const int64_t start = a.starts ? a.starts[s] : 0;
    int64_t rows = a.rows;
    if (a.counts) rows = a.counts[s] < 0 ? 0 : a.counts[s] < rows ? a.counts[s] : rows;
    if (global_thread() == 0) a.lengths[s] = static_cast<int32_t>(start + rows);
    for (int64_t t = global_thread() / kWarp; t < rows; t += grid_threads() / kWarp) {
      const T* k = row_of<const T>(a.k, s, t);
      T* to_k = row_of<T>(a.cached_k, s, start + t);
      if (a.cosines) {
        rotate_row<T, kWidth>(a, k, to_k, start + t, lane);
      } else {
        copy_row<T, kWidth>(k, to_k, columns, lane);
      }
      copy_row<T, kWidth>(row_of<const T>(a.v, s, t), row_of<T>(a.cached_v, s, start + t), columns,
                          lane);
    }
  }
}

// An index that names no sequence leaves an empty one, since a kernel can't throw.
template <class Unit>
__global__ void copy_sequences(CopySequencesArgs a) {
  const auto size = static_cast<int64_t>(sizeof(Unit));
  const int64_t row_units = a.row_bytes / size;
  for (int64_t s = blockIdx.y; s < a.sequences; s += gridDim.y) {
    const int64_t from = a.from ? a.from[s] : s;
    const bool exists = from >= 0 && from < a.from_sequences;
    const int64_t rows = exists ? a.lengths[from] : 0;
    if (global_thread() == 0) a.to_lengths[s] = static_cast<int32_t>(rows);
    if (rows == 0) continue;
    const int64_t source = from * a.from_capacity * row_units, to = s * a.capacity * row_units;
    copy_units(static_cast<Unit*>(a.to_k) + to, static_cast<const Unit*>(a.k) + source,
               global_thread(), grid_threads(), rows * row_units);
    copy_units(static_cast<Unit*>(a.to_v) + to, static_cast<const Unit*>(a.v) + source,
               global_thread(), grid_threads(), rows * row_units);
  }
}

__global__ void next_positions(NextPositionsArgs a) {
  for (int64_t s = blockIdx.y; s < a.sequences; s += gridDim.y) {
    const int64_t start = a.lengths ? a.lengths[s] : 0;
    for (int64_t t = global_thread(); t < a.rows; t += grid_threads())
      a.positions[s * a.rows + t] = static_cast<int32_t>(start + t);
  }
}

dim3 grid_of(unsigned across, int64_t sequences) {
  return {across, static_cast<unsigned>(sequences < kMostSequences ? sequences : kMostSequences)};
}

// Whether rows of all heads can be moved in packs of 16 bytes: packs must not cross from one half
// of a head into the other where keys are rotated, and all rows must begin on a multiple of 16.
template <class T>
bool appends_packs(const AppendKeysArgs& a) {
  const int64_t piece = a.cosines ? a.head_dim / 2 : a.kv_heads * a.head_dim;
  bool packed = piece % kPack<T> == 0 && packs(0, 1, a.cosines, a.sines);
  for (const HeadsView& view : {a.k, a.v, a.cached_k, a.cached_v})
    packed = packed && packs(view.row_stride, sizeof(T), view.data) &&
             packs(view.sample_stride, sizeof(T));
  return packed;
}

}  // namespace
}  // namespace cuda

void launch(CudaStream& stream, const AppendKeysArgs& a) {
  if (a.sequences == 0) return;
  const int64_t warps = cuda::kThreads / cuda::kWarp;
  const auto used = static_cast<unsigned>(a.rows < 1 ? 1 : a.rows < warps ? a.rows : warps);
  const dim3 grid = cuda::grid_of(cuda::blocks_for(a.rows, warps), a.sequences);
  visit_floating(a.dtype, [&](auto type) {
    using T = decltype(type);
    if (cuda::appends_packs<T>(a)) {
      ADAGATE_LAUNCH((cuda::append_keys<T, cuda::kPack<T>>), grid, used * cuda::kWarp, 0, stream,
                     a);
    } else {
      ADAGATE_LAUNCH((cuda::append_keys<T, 1>), grid, used * cuda::kWarp, 0, stream, a);
    }
  });
}

void launch(CudaStream& stream, const CopySequencesArgs& a) {
  if (a.sequences == 0) return;
  cuda::visit_unit(
      a.row_bytes,
      [&](auto unit) {
        constexpr int64_t kEach = 4;
        constexpr unsigned kMostBlocks = 64;
        const int64_t units = a.from_capacity * a.row_bytes / static_cast<int64_t>(sizeof(unit));
        const unsigned blocks = cuda::blocks_for(units, cuda::kThreads, kEach);
        const dim3 grid = cuda::grid_of(blocks < kMostBlocks ? blocks : kMostBlocks, a.sequences);
        ADAGATE_LAUNCH(cuda::copy_sequences<decltype(unit)>, grid, cuda::kThreads, 0, stream, a);
      },
      a.k, a.v, a.to_k, a.to_v);
}

void launch(CudaStream& stream, const NextPositionsArgs& a) {
  if (a.sequences == 0) return;
  const dim3 grid = cuda::grid_of(cuda::blocks_for(a.rows, cuda::kThreads), a.sequences);
  ADAGATE_LAUNCH(cuda::next_positions, grid, cuda::kThreads, 0, stream, a);
}

}  // namespace adagate
