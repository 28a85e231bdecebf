// Rows between token order and expert order; every row is read once and written once.
//
// Gather and scatter: lanes per row by its length, at most a warp, four units of up to 16 bytes
// each on their way at a time.
// Sums and their gradient: a warp per token, which goes through the token's assignments in their
// order. Of a sum each lane keeps the same few packs of columns of all rows; a gradient's inner
// product is summed by lane, then over the warp: an order that depends on the width only. Both end
// where row_start on the device says.
#include "core/device/cuda/stream.h"
#include "core/ops/cuda/copy_units.h"
#include "core/ops/cuda/elements.h"
#include "core/ops/cuda/reduce.h"
#include "core/ops/permute.h"

namespace adagate {
namespace cuda {
namespace {

constexpr int kThreads = 256;

struct RowCopy {
  const void* in;
  void* out;
  const int32_t* index;
  const int64_t* used;  // null: all rows
  int64_t rows, row_bytes;
  int lanes;  // of a row, a power of two
};

template <class Unit>
__device__ Unit* unit_row(void* rows, int64_t i, int64_t row_bytes) {
  return reinterpret_cast<Unit*>(static_cast<unsigned char*>(rows) + i * row_bytes);
}
template <class Unit>
__device__ const Unit* unit_row(const void* rows, int64_t i, int64_t row_bytes) {
  return reinterpret_cast<const Unit*>(static_cast<const unsigned char*>(rows) + i * row_bytes);
}

// out[i] = in[index[i]], or with kScatter out[index[i]] = in[i].
template <class Unit, bool kScatter>
__global__ void copy_rows(RowCopy a) {
  const int64_t rows = a.used ? *a.used : a.rows;
  const int lane = static_cast<int>(threadIdx.x) % a.lanes;
  const int64_t units = a.row_bytes / static_cast<int64_t>(sizeof(Unit));
  for (int64_t i = global_thread() / a.lanes; i < rows; i += grid_threads() / a.lanes) {
    const int64_t other = a.index[i];
    copy_units(unit_row<Unit>(a.out, kScatter ? other : i, a.row_bytes),
               unit_row<Unit>(a.in, kScatter ? i : other, a.row_bytes), lane, a.lanes, units);
  }
}

template <bool kScatter>
void launch_copy(CudaStream& stream, RowCopy a) {
  if (a.rows == 0 || a.row_bytes == 0) return;
  visit_unit(
      a.row_bytes,
      [&](auto unit) {
        using Unit = decltype(unit);
        a.lanes = 1;
        while (a.lanes < kWarp && a.lanes * static_cast<int64_t>(sizeof(Unit)) < a.row_bytes)
          a.lanes *= 2;
        ADAGATE_LAUNCH((copy_rows<Unit, kScatter>), blocks_for(a.rows * a.lanes, kThreads),
                       kThreads, 0, stream, a);
      },
      a.in, a.out);
}

// Columns that a lane has in registers, in packs that are a warp's apart.
template <int kWidth>
constexpr int kPacksOfLane = kWidth > 1 ? 2 : 4;

template <class T, int kWidth>
__global__ void sum_rows(SumRowsArgs a) {
  using C = Compute<T>;
  constexpr int kPacks = kPacksOfLane<kWidth>, kStep = kWarp * kWidth;
  const T* rows = static_cast<const T*>(a.rows);
  const C* weight = static_cast<const C*>(a.weight);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int64_t t = global_thread() / kWarp; t < a.tokens; t += grid_threads() / kWarp) {
    const int32_t begin = a.row_start[t], end = a.row_start[t + 1];
    T* out = static_cast<T*>(a.out) + t * a.width;
    for (int64_t first = lane * kWidth; first < a.width; first += kPacks * kStep) {
      C sums[kPacks][kWidth] = {};
#pragma unroll
      for (int j = 0; j < kPacks; ++j)
        if (a.accumulate && first + j * kStep < a.width) load(sums[j], out + first + j * kStep);
#pragma unroll 2
      for (int32_t i = begin; i < end; ++i) {
        const T* row = rows + a.row[i] * a.width + first;
        const C factor = weight ? weight[i] : C(1);
#pragma unroll
        for (int j = 0; j < kPacks; ++j) {
          C values[kWidth] = {};
          if (first + j * kStep < a.width) load(values, row + j * kStep);
#pragma unroll
          for (int c = 0; c < kWidth; ++c) sums[j][c] += factor * values[c];
        }
      }
#pragma unroll
      for (int j = 0; j < kPacks; ++j)
        if (first + j * kStep < a.width) store(out + first + j * kStep, sums[j]);
    }
  }
}

// One pack of columns of one assignment: drow (+)= w dy; returns its part of <dy, row>.
template <class T, int kWidth>
__device__ Compute<T> combine_pack(const CombineBackwardArgs& a, const T* dy, const T* row,
                                   Compute<T> w, T* drow) {
  using C = Compute<T>;
  C d[kWidth], product = 0;
  load(d, dy);
  if (row) {
    C values[kWidth];
    load(values, row);
#pragma unroll
    for (int c = 0; c < kWidth; ++c) product += d[c] * values[c];
  }
  if (drow) {
    C sums[kWidth] = {};
    if (a.accumulate_drows) load(sums, drow);
#pragma unroll
    for (int c = 0; c < kWidth; ++c) sums[c] += w * d[c];
    store(drow, sums);
  }
  return product;
}

template <class T, int kWidth>
__global__ void combine_backward(CombineBackwardArgs a) {
  using C = Compute<T>;
  const C* weight = static_cast<const C*>(a.weight);
  C* dweight = static_cast<C*>(a.dweight);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int64_t t = global_thread() / kWarp; t < a.tokens; t += grid_threads() / kWarp) {
    const T* dy = static_cast<const T*>(a.dy) + t * a.width;
    const int32_t end = a.row_start[t + 1];
    for (int32_t i = a.row_start[t]; i < end; ++i) {
      const int64_t at = a.row[i] * a.width;
      const T* row = dweight ? static_cast<const T*>(a.rows) + at : nullptr;
      T* drow = a.drows ? static_cast<T*>(a.drows) + at : nullptr;
      const C w = weight[i];
      C dot = 0;
#pragma unroll 4
      for (int64_t c = lane * kWidth; c < a.width; c += kWarp * kWidth)
        dot += combine_pack<T, kWidth>(a, dy + c, row ? row + c : nullptr, w,
                                       drow ? drow + c : nullptr);
      if (!dweight) continue;
      dot = warp_sum(dot);
      if (lane == 0) dweight[i] = a.accumulate_dweight ? dweight[i] + dot : dot;
    }
  }
}

// A warp per token, eight a block.
unsigned blocks_of_tokens(int64_t tokens) {
  return blocks_for(tokens, kThreads / kWarp);
}

}  // namespace
}  // namespace cuda

void launch(CudaStream& stream, const GatherRowsArgs& a) {
  cuda::launch_copy<false>(stream, {a.in, a.out, a.from, a.used, a.rows, a.row_bytes, 1});
}

void launch(CudaStream& stream, const ScatterRowsArgs& a) {
  cuda::launch_copy<true>(stream, {a.in, a.out, a.to, nullptr, a.rows, a.row_bytes, 1});
}

void launch(CudaStream& stream, const SumRowsArgs& a) {
  if (a.tokens == 0) return;
  visit_floating(a.type, [&](auto type) {
    using T = decltype(type);
    if (cuda::packs(a.width, sizeof(T), a.rows, a.out)) {
      ADAGATE_LAUNCH((cuda::sum_rows<T, cuda::kPack<T>>), cuda::blocks_of_tokens(a.tokens),
                     cuda::kThreads, 0, stream, a);
    } else {
      ADAGATE_LAUNCH((cuda::sum_rows<T, 1>), cuda::blocks_of_tokens(a.tokens), cuda::kThreads, 0,
                     stream, a);
    }
  });
}

void launch(CudaStream& stream, const CombineBackwardArgs& a) {
  if (a.tokens == 0) return;
  visit_floating(a.type, [&](auto type) {
    using T = decltype(type);
    if (cuda::packs(a.width, sizeof(T), a.dy, a.rows, a.drows)) {
      ADAGATE_LAUNCH((cuda::combine_backward<T, cuda::kPack<T>>), cuda::blocks_of_tokens(a.tokens),
                     cuda::kThreads, 0, stream, a);
    } else {
      ADAGATE_LAUNCH((cuda::combine_backward<T, 1>), cuda::blocks_of_tokens(a.tokens),
                     cuda::kThreads, 0, stream, a);
    }
  });
}

}  // namespace adagate
