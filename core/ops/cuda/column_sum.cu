// The first of the two kernels of column_sums.h: a lane has 16 bytes of columns, so that a warp
// reads 512 bytes of a row; every element is read once.
#include "core/ops/column_sum.h"
#include "core/ops/cuda/column_sums.h"

namespace adagate {
namespace {

using namespace cuda;

constexpr int64_t kBlocksWanted = 2048;

template <class T, int kWidth>
__global__ void __launch_bounds__(kSumThreads)
    column_sum(const T* x, int64_t ld, int cols, int tiles, Slabs slabs, Compute<T>* partial,
               int64_t stride) {
  const SlabTile at = slab_tile(slabs, tiles);
  if (at.slab.group < 0) return;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int column = (at.tile * kWarp + lane) * kWidth;
  Compute<T> sums[1][kWidth] = {};
  if (column < cols) {
#pragma unroll 4
    for (int64_t row = at.slab.begin + warp; row < at.slab.end; row += kSumWarps) {
      Compute<T> values[kWidth];
      load_some(values, x + row * ld + column, cols - column);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) sums[0][k] += values[k];
    }
  }
  if (add_up_warps(sums) && column < cols)
    store_some(partial + at.number * stride + column, sums[0], cols - column);
}

template <class T, int kWidth>
void run(CudaStream& stream, const ColumnSumArgs& p, int64_t ld) {
  using C = Compute<T>;
  const int64_t tiles = (p.cols + kWarp * kWidth - 1) / (kWarp * kWidth);
  const Slabs slabs =
      cut_rows(p.rows, std::max<int64_t>(1, kBlocksWanted / tiles), p.offsets, p.groups);
  const int64_t stride = partial_stride(p.cols);
  Scratch<C> partial(stream, std::max<int64_t>(1, slabs.most) * stride);
  if (p.rows > 0) {
    ADAGATE_LAUNCH((column_sum<T, kWidth>), static_cast<unsigned>(slabs.most * tiles), kSumThreads,
                   0, stream, static_cast<const T*>(p.x), ld, static_cast<int>(p.cols),
                   static_cast<int>(tiles), slabs, partial.data(), stride);
  }
  finish_column_sums(stream, slabs, partial.data(), stride, p.cols,
                     {p.out, p.out_type, p.accumulate});
}

}  // namespace

void launch(CudaStream& stream, const ColumnSumArgs& p) {
  if (p.cols == 0 || p.groups == 0) return;
  const int64_t ld = p.ld ? p.ld : p.cols;
  visit_floating(p.x_type, [&](auto type) {
    using T = decltype(type);
    visit_width<T>(packs(ld, sizeof(T), p.x),
                   [&](auto width) { run<T, decltype(width)::value>(stream, p, ld); });
  });
}

}  // namespace adagate
