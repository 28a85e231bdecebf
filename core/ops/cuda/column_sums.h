// Sums over rows, per column, in two kernels whose order of adding depends on sizes only:
//   1. Rows are cut into slabs, none of which has rows of two groups. A block takes one slab and a
//      tile of columns; its kSumWarps warps take the slab's rows in turn and add them up in
//      registers, then the warps' sums are added in order and written to a row of partial sums.
//      Whatever else a kernel does with these rows happens in the same pass over memory.
//   2. finish_column_sums() adds up the partial rows of each group.
// Where groups begin is known on the device only, so launches are made for the most slabs that
// there can be, and blocks find out which rows are theirs.
#pragma once

#include <algorithm>

#include "core/device/cuda/stream.h"
#include "core/ops/cuda/elements.h"
#include "core/ops/cuda/scan.h"

namespace adagate::cuda {

constexpr int kSumWarps = 8;
constexpr int kSumThreads = kSumWarps * kWarp;

// How rows are cut: a power of two of them each, the last slab of a group has fewer.
struct Slabs {
  const int64_t* offsets = nullptr;  // [groups + 1] on the device; null: one group of all rows
  int64_t rows = 0, groups = 1;
  int rows_log2 = 0;
  int64_t most = 0;  // slabs that there can be

  ADAGATE_HD int64_t slabs_of(int64_t group_rows) const {
    return (group_rows + (int64_t{1} << rows_log2) - 1) >> rows_log2;
  }
};

// About `wanted` slabs, of 16 rows at least.
inline Slabs cut_rows(int64_t rows, int64_t wanted, const int64_t* offsets = nullptr,
                      int64_t groups = 1) {
  constexpr int kFewestLog2 = 4;
  Slabs slabs{.offsets = offsets, .rows = rows, .groups = groups, .rows_log2 = kFewestLog2};
  while (slabs.slabs_of(rows) > wanted) ++slabs.rows_log2;
  slabs.most = slabs.slabs_of(rows) + (offsets ? groups : 0);
  return slabs;
}

// Rows begin .. end - 1, of this group; -1: there is no such slab.
struct Slab {
  int64_t group, begin, end;
};

// The slab of this number; called by whole warps.
__device__ inline Slab slab_at(const Slabs& slabs, int64_t number) {
  const int64_t size = int64_t{1} << slabs.rows_log2;
  if (!slabs.offsets) {
    const int64_t begin = number * size;
    return {0, begin, begin + size < slabs.rows ? begin + size : slabs.rows};
  }
  const int lane = threadIdx.x % kWarp;
  int64_t before = 0;  // slabs of the groups that were looked at
  for (int64_t first = 0; first < slabs.groups; first += kWarp) {
    const int64_t g = first + lane;
    const int64_t begin = g < slabs.groups ? slabs.offsets[g] : 0;
    const int64_t end = g < slabs.groups ? slabs.offsets[g + 1] : 0;
    const int64_t count = slabs.slabs_of(end - begin), through = before + warp_scan(count);
    const unsigned beyond = __ballot_sync(kAllLanes, through > number);
    if (beyond != 0) {
      const int owner = __ffs(static_cast<int>(beyond)) - 1;
      const int64_t mine = begin + (number - (through - count)) * size;
      const int64_t stop = mine + size < end ? mine + size : end;
      return {first + owner, __shfl_sync(kAllLanes, mine, owner),
              __shfl_sync(kAllLanes, stop, owner)};
    }
    before = __shfl_sync(kAllLanes, through, kWarp - 1);
  }
  return {-1, 0, 0};
}

// The numbers of a group's slabs: from `first` on; called by whole warps.
struct SlabRange {
  int64_t first, count;
};
__device__ inline SlabRange slabs_of_group(const Slabs& slabs, int64_t group) {
  if (!slabs.offsets) return {0, slabs.slabs_of(slabs.rows)};
  int64_t before = 0;
  for (int64_t g = threadIdx.x % kWarp; g < group; g += kWarp)
    before += slabs.slabs_of(slabs.offsets[g + 1] - slabs.offsets[g]);
  return {warp_sum(before), slabs.slabs_of(slabs.offsets[group + 1] - slabs.offsets[group])};
}

// What a block of a kernel over (slab, tile of columns) works on.
struct SlabTile {
  int64_t number;  // of the slab
  Slab slab;
  int tile;
};
__device__ inline SlabTile slab_tile(const Slabs& slabs, int tiles) {
  const int64_t number = blockIdx.x / static_cast<unsigned>(tiles);
  return {number, slab_at(slabs, number),
          static_cast<int>(blockIdx.x % static_cast<unsigned>(tiles))};
}

// sums += those of the warps before, for the warps of a block in order; true in the last warp,
// which then has the sums of all. Called once in a kernel, by all threads.
template <int kPacks, int kWidth, class C>
__device__ inline bool add_up_warps(C (&sums)[kPacks][kWidth]) {
  ADAGATE_SHARED(C, shared, kPacks * kWidth * kWarp);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int last = blockDim.x / kWarp - 1;
  for (int turn = 0; turn <= last; ++turn) {
    if (turn > 0) __syncthreads();
    if (warp != turn) continue;
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
#pragma unroll
      for (int k = 0; k < kWidth; ++k) {
        C& at = shared[(i * kWidth + k) * kWarp + lane];
        if (turn > 0) sums[i][k] += at;
        if (turn < last) at = sums[i][k];
      }
    }
  }
  return warp == last;
}

// A row of partial sums has room for packs of any type.
inline int64_t partial_stride(int64_t cols) {
  return (cols + 7) / 8 * 8;
}

// Where the sums of one range of the partial rows' columns go: out[g, c] (+)= the sums of column
// first + c over the slabs of group g.
struct ColumnTarget {
  void* out = nullptr;  // [groups, cols]; null: not wanted
  DType type = DType::f32;
  bool accumulate = false;
  int64_t first = 0;
};

// partial [slabs.most, stride] of C, which is float or double.
template <class C>
void finish_column_sums(CudaStream& stream, const Slabs& slabs, const C* partial, int64_t stride,
                        int64_t cols, const ColumnTarget& target, const ColumnTarget& other = {});

}  // namespace adagate::cuda
