// How a block of attention's kernels works: four warps own P::kRows rows each of one side (queries,
// or keys for their gradients), tiles of P::kOther rows of the other side pass by. P: the products
// of attention_products.h.
#pragma once

#include "core/ops/cuda/attention_products.h"
#include "core/ops/cuda/attention_units.h"

namespace adagate::cuda {

template <class T, class P>
struct AttentionBlock {
  using C = typename P::C;
  using Operand = typename P::Operand;
  static constexpr int kWarps = 4, kThreads = kWarps * kWarp;
  static constexpr int kRows = kWarps * P::kRows;
  // A warp's row of scores is shared by some lanes: this one has `part`, `part` + kShare, ..
  static constexpr int kShare = kWarp / P::kRows, kEach = P::kOther / kShare;

  static constexpr size_t kTileBytes = kRows * P::kStride * sizeof(Operand);
  static constexpr size_t kOtherBytes = P::kOther * P::kStride * sizeof(Operand);
  static constexpr size_t kScoreBytes = kRows * P::kScoreStride * sizeof(C);
  static constexpr size_t kFactorBytes = kRows * P::kFactors * sizeof(C);
  static constexpr size_t kSumBytes = kRows * P::kSumStride * sizeof(C);
  // Sums leave by the place of the other side's tiles.
  static_assert(kSumBytes <= 2 * kOtherBytes);

  __device__ static int warp() { return static_cast<int>(threadIdx.x) / kWarp; }
  __device__ static int lane() { return static_cast<int>(threadIdx.x) % kWarp; }
  // Of the block's rows: the warp's first, and the one whose scores this lane shares.
  __device__ static int warp_row() { return warp() * P::kRows; }
  __device__ static int lane_row() { return warp_row() + lane() / kShare; }
  __device__ static int part() { return lane() % kShare; }

  // The next `bytes` of shared memory.
  template <class E>
  __device__ static E* take(unsigned char*& memory, size_t bytes) {
    E* taken = reinterpret_cast<E*>(memory);
    memory += bytes;
    return taken;
  }

  template <int kTileRows>
  __device__ static void load_tile(const HeadRows<const T>& from, int t, int count, int head_dim,
                                   const Angles<C>& angles, bool pack, Operand* to) {
    load_rows<kTileRows, P::kDim, P::kStride, kThreads, Operand, C>(from, t, count, head_dim,
                                                                    angles, pack, to);
  }

  // Over the lanes that share a row.
  template <class Combine>
  __device__ static C over_row(C value, Combine combine) {
#pragma unroll
    for (int distance = kShare / 2; distance > 0; distance /= 2)
      value = combine(value, __shfl_xor_sync(kAllLanes, value, distance));
    return value;
  }
};

// Calls f.template operator()<kDim>() with the columns that tiles have for heads of `head_dim`.
template <class F>
void visit_head_dim(int64_t head_dim, F&& f) {
  if (head_dim <= 64) return f.template operator()<64>();
  if (head_dim <= 128) return f.template operator()<128>();
  return f.template operator()<256>();
}
constexpr int64_t kMostHeadDim = 256;  // above, attention goes row by row

}  // namespace adagate::cuda
