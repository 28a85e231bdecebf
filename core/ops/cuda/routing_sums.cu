// Sums over a batch that losses and statistics need.
//
// A block takes a chunk of tokens, a thread each, and a window of experts: integers are counted in
// shared memory (whose order can't matter), probabilities are summed in f64 by threads that stand
// for an expert and every so-many-th token, side by side in memory, gaps by a group of lanes per
// token. Chunks leave partial sums that a second kernel adds, each thread every eighth chunk, and
// the threads in their order. Probabilities are read once from memory and once more from caches.
#include "core/device/cuda/stream.h"
#include "core/ops/cuda/lane_groups.h"
#include "core/ops/gate_types.h"
#include "core/ops/routing.h"
#include "core/ops/routing_math.h"

namespace adagate {
namespace cuda {
namespace {

constexpr int kThreads = 256;  // tokens of a chunk
constexpr int kWindow = 256;   // experts of a block

// The counts of one chunk and window, in shared memory.
struct WindowCounts {
  int32_t single[kWindow], assigned[kWindow], by_count[kWindow], gap[kGapBins];
};

struct Chunk {
  int64_t begin, end;      // tokens
  int64_t first_expert;    // of the window
  int32_t window_experts;  // in it; by_count has one place more than there are experts

  __device__ explicit Chunk(const RoutingSumsArgs& a)
      : begin(static_cast<int64_t>(blockIdx.x) * kThreads),
        end(begin + kThreads < a.tokens ? begin + kThreads : a.tokens),
        first_expert(static_cast<int64_t>(blockIdx.y) * kWindow) {
    const int64_t left = a.experts - first_expert;
    window_experts = static_cast<int32_t>(left < kWindow ? left : kWindow);
  }
};

__device__ inline bool is_real(const RoutingSumsArgs& a, int64_t t) {
  return !a.mask || a.mask[t];
}

__device__ inline void count(int32_t* counts, int64_t place) {
  if (place >= 0 && place < kWindow) atomicAdd(counts + place, 1);
}

__device__ void count_assignments(const RoutingSumsArgs& a, const Chunk& chunk,
                                  WindowCounts& counts) {
  const int64_t t = chunk.begin + threadIdx.x;
  if (t >= chunk.end || !is_real(a, t)) return;
  const int32_t first = a.row_start[t], last = a.row_start[t + 1];
  for (int32_t i = first; i < last; ++i) {
    const int64_t place = a.expert[i] - chunk.first_expert;
    count(counts.assigned, place);
    if (last - first == 1) count(counts.single, place);
  }
  count(counts.by_count, last - first - chunk.first_expert);
}

// Two largest probabilities.
template <class T>
struct TopTwo {
  T first = 0, second = 0;
  __device__ void join(T other_first, T other_second) {
    const T lower = first < other_first ? first : other_first;
    const T second_best = Max{}(second, other_second);
    first = Max{}(first, other_first);
    second = Max{}(lower, second_best);
  }
};

template <class T, int kLanes>
__device__ void count_gaps(const RoutingSumsArgs& a, const Chunk& chunk, WindowCounts& counts) {
  constexpr int kGroups = kThreads / kLanes;
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  for (int round = 0; round < kThreads / kGroups; ++round) {
    const int64_t t = chunk.begin + round * kGroups + threadIdx.x / kLanes;
    const bool real = t < chunk.end && is_real(a, t);
    const T* p = static_cast<const T*>(a.probabilities) + t * a.experts;
    TopTwo<T> top;
    for (int64_t e = lane; real && e < a.experts; e += kLanes) top.join(p[e], 0);
#pragma unroll
    for (int distance = kLanes / 2; distance > 0; distance /= 2) {
      const T other = __shfl_xor_sync(kAllLanes, top.first, distance);
      top.join(other, __shfl_xor_sync(kAllLanes, top.second, distance));
    }
    if (real && lane == 0)
      atomicAdd(counts.gap + gap_bin(top.first, top.second, a.pair_normalized), 1);
  }
}

// to [window's experts]. `shared`: f64 [kThreads].
template <class T>
__device__ void sum_probabilities(const RoutingSumsArgs& a, const Chunk& chunk, double* shared,
                                  double* to) {
  int lanes = 1;
  while (lanes < chunk.window_experts) lanes *= 2;
  const int e = static_cast<int>(threadIdx.x) % lanes, groups = kThreads / lanes;
  const T* p = static_cast<const T*>(a.probabilities) + chunk.first_expert + e;
  double sum = 0;
  if (e < chunk.window_experts) {
#pragma unroll 4
    for (int64_t t = chunk.begin + threadIdx.x / lanes; t < chunk.end; t += groups)
      if (is_real(a, t)) sum += static_cast<double>(p[t * a.experts]);
  }
  shared[threadIdx.x] = sum;
  __syncthreads();
  if (static_cast<int>(threadIdx.x) >= chunk.window_experts) return;
  for (int group = 1; group < groups; ++group) sum += shared[group * lanes + threadIdx.x];
  to[threadIdx.x] = sum;
}

template <class T>
__device__ void sum_scalars(const RoutingSumsArgs& a, const Chunk& chunk, double* shared,
                            const RoutingSumsParts<double>& to) {
  const int64_t t = chunk.begin + threadIdx.x;
  const bool real = t < chunk.end && is_real(a, t);
  const double lse = real ? static_cast<double>(static_cast<const T*>(a.log_sum_exp)[t]) : 0;
  const double entropy = real ? static_cast<double>(static_cast<const T*>(a.entropy)[t]) : 0;
  const double tokens = block_sum(real ? 1.0 : 0.0, shared);
  const double entropies = block_sum(entropy, shared);
  const double squares = block_sum(lse * lse, shared);
  if (threadIdx.x > 0) return;
  to.tokens() = tokens;
  to.entropy() = entropies;
  to.log_sum_exp_squared() = squares;
}

// partial [chunks, routing_sums_size(experts)]
template <class T, int kLanes>
__launch_bounds__(kThreads) __global__ void routing_sums(RoutingSumsArgs a, double* partial) {
  ADAGATE_SHARED(WindowCounts, counts, 1);
  ADAGATE_SHARED(double, shared, kThreads);
  const Chunk chunk(a);
  const RoutingSumsParts<double> to{partial + blockIdx.x * routing_sums_size(a.experts), a.experts};
  const int i = static_cast<int>(threadIdx.x);
  const int64_t place = chunk.first_expert + i;
  counts->single[i] = counts->assigned[i] = counts->by_count[i] = 0;
  if (i < kGapBins) counts->gap[i] = 0;
  __syncthreads();
  count_assignments(a, chunk, *counts);
  if (blockIdx.y == 0) {
    count_gaps<T, kLanes>(a, chunk, *counts);
    sum_scalars<T>(a, chunk, shared, to);
    __syncthreads();
  }
  sum_probabilities<T>(a, chunk, shared, to.probability() + chunk.first_expert);
  if (i < chunk.window_experts) {
    to.single()[place] = counts->single[i];
    to.assigned()[place] = counts->assigned[i];
  }
  if (place <= a.experts) to.by_count()[place] = counts->by_count[i];
  if (blockIdx.y == 0 && i < kGapBins) to.gap()[i] = counts->gap[i];
}

// 32 sums a block, eight threads each.
__global__ void add_routing_sums(double* sums, int64_t size, int64_t chunks,
                                 const double* partial) {
  constexpr int kRows = kThreads / kWarp;
  ADAGATE_SHARED(double, shared, kThreads);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kWarp + lane;
  double sum = 0;
  if (i < size) {
#pragma unroll 4
    for (int64_t c = threadIdx.x / kWarp; c < chunks; c += kRows) sum += partial[c * size + i];
  }
  shared[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x >= kWarp || i >= size) return;
  for (int row = 1; row < kRows; ++row) sum += shared[row * kWarp + lane];
  sums[i] = sum;
}

template <class T, int kLanes>
void launch_sums(CudaStream& stream, const RoutingSumsArgs& a) {
  const int64_t chunks = (a.tokens + kThreads - 1) / kThreads, size = routing_sums_size(a.experts);
  const Scratch<double> partial(stream, (chunks > 0 ? chunks : 1) * size);
  if (chunks > 0) {
    const dim3 grid(static_cast<unsigned>(chunks), static_cast<unsigned>(a.experts / kWindow + 1));
    ADAGATE_LAUNCH((routing_sums<T, kLanes>), grid, kThreads, 0, stream, a, partial.data());
  }
  ADAGATE_LAUNCH(add_routing_sums, static_cast<unsigned>((size + kWarp - 1) / kWarp), kThreads, 0,
                 stream, a.sums, size, chunks, partial.data());
}

}  // namespace
}  // namespace cuda

void launch(CudaStream& stream, const RoutingSumsArgs& a) {
  visit_gate_type(a.type, [&](auto type) {
    cuda::visit_lanes(a.experts, [&](auto lanes) {
      cuda::launch_sums<decltype(type), decltype(lanes)::value>(stream, a);
    });
  });
}

}  // namespace adagate
