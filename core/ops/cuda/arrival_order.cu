// The order of rows that arrive by source and group and are worked on by group.
//
// One block finds where each segment (source, group) begins in either order by two prefix sums over
// the counts; then a few blocks per segment write its indices, eight bytes a row, side by side. How
// many rows there are only the counts on the device say.
#include "core/device/cuda/stream.h"
#include "core/ops/arrival_order.h"
#include "core/ops/cuda/scan.h"

namespace adagate {
namespace cuda {
namespace {

constexpr int kThreads = 256, kScanThreads = 1024;
constexpr int64_t kBlocks = 264;  // about two for each multiprocessor of a large GPU

// arrived, sorted [sources, groups]: the first row of each segment in either order.
__launch_bounds__(kScanThreads) __global__
    void order_segments(ArrivalOrderArgs a, int64_t* arrived, int64_t* sorted) {
  ADAGATE_SHARED(int64_t, shared, kWarp);
  const int64_t segments = a.sources * a.groups;
  scan_by_block<int64_t>(
      segments, shared, [=](int64_t i) { return a.counts[i]; },
      [=](int64_t i, int64_t before) { arrived[i] = before; });
  const int64_t rows = scan_by_block<int64_t>(
      segments, shared,
      [=](int64_t i) { return a.counts[i % a.sources * a.groups + i / a.sources]; },
      [=](int64_t i, int64_t before) {
        const int64_t source = i % a.sources, group = i / a.sources;
        sorted[source * a.groups + group] = before;
        if (source == 0) a.offsets[group] = before;
      });
  if (threadIdx.x == 0) a.offsets[a.groups] = rows;
}

__global__ void place_arrivals(ArrivalOrderArgs a, const int64_t* arrived, const int64_t* sorted) {
  const int64_t first = static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x;
  for (int64_t i = blockIdx.x; i < a.sources * a.groups; i += gridDim.x) {
    const int64_t from = arrived[i], to = sorted[i], rows = a.counts[i];
    for (int64_t r = first; r < rows; r += static_cast<int64_t>(gridDim.y) * blockDim.x) {
      a.to_sorted[to + r] = static_cast<int32_t>(from + r);
      a.to_arrived[from + r] = static_cast<int32_t>(to + r);
    }
  }
}

}  // namespace
}  // namespace cuda

void launch(CudaStream& stream, const ArrivalOrderArgs& a) {
  const int64_t segments = a.sources * a.groups;
  const cuda::Scratch<int64_t> begins(stream, 2 * segments + 1);
  int64_t *arrived = begins.data(), *sorted = arrived + segments;
  ADAGATE_LAUNCH(cuda::order_segments, 1, cuda::kScanThreads, 0, stream, a, arrived, sorted);
  if (segments == 0) return;
  const int64_t parts = cuda::kBlocks / segments > 0 ? cuda::kBlocks / segments : 1;
  const dim3 grid(cuda::blocks_for(segments, 1), static_cast<unsigned>(parts));
  ADAGATE_LAUNCH(cuda::place_arrivals, grid, cuda::kThreads, 0, stream, a, arrived, sorted);
}

}  // namespace adagate
