// A block takes 32 columns of one group: 32 warps read its partial rows in turn, a lane a column;
// then each warp adds up what the warps have of one column.
#include "core/ops/cuda/column_sums.h"

namespace adagate::cuda {
namespace {

constexpr int kWarps = 32;

template <class C>
__global__ void __launch_bounds__(kWarps* kWarp)
    add_partial_rows(Slabs slabs, const C* partial, int64_t stride, int cols, int tiles,
                     ColumnTarget target, ColumnTarget other) {
  ADAGATE_SHARED(C, sums, kWarp * (kWarps + 1));  // [column, warp], padded: no bank conflicts
  if (blockIdx.y == 1) target = other;
  if (!target.out) return;
  const int64_t group = blockIdx.x / static_cast<unsigned>(tiles);
  const int begin = static_cast<int>(blockIdx.x % static_cast<unsigned>(tiles)) * kWarp;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const SlabRange range = slabs_of_group(slabs, group);
  C sum = 0;
  if (begin + lane < cols) {
    const C* from = partial + range.first * stride + target.first + begin + lane;
#pragma unroll 4
    for (int64_t i = warp; i < range.count; i += kWarps) sum += from[i * stride];
  }
  sums[lane * (kWarps + 1) + warp] = sum;
  __syncthreads();
  const C total[1] = {warp_sum(sums[warp * (kWarps + 1) + lane])};
  if (lane != 0 || begin + warp >= cols) return;
  const int64_t at = group * cols + begin + warp;
  C before[1] = {};
  if (target.accumulate) load_as(before, target.type, target.out, at);
  before[0] += total[0];
  store_as(target.type, target.out, at, before);
}

}  // namespace

template <class C>
void finish_column_sums(CudaStream& stream, const Slabs& slabs, const C* partial, int64_t stride,
                        int64_t cols, const ColumnTarget& target, const ColumnTarget& other) {
  if (cols == 0 || slabs.groups == 0 || (!target.out && !other.out)) return;
  const int64_t tiles = (cols + kWarp - 1) / kWarp;
  const dim3 grid(static_cast<unsigned>(slabs.groups * tiles), other.out ? 2 : 1);
  ADAGATE_LAUNCH(add_partial_rows<C>, grid, kWarps * kWarp, 0, stream, slabs, partial, stride,
                 static_cast<int>(cols), static_cast<int>(tiles), target, other);
}

template void finish_column_sums(CudaStream&, const Slabs&, const float*, int64_t, int64_t,
                                 const ColumnTarget&, const ColumnTarget&);
template void finish_column_sums(CudaStream&, const Slabs&, const double*, int64_t, int64_t,
                                 const ColumnTarget&, const ColumnTarget&);

}  // namespace adagate::cuda
