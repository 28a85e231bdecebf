// Choice of experts, and its CSR form.
//
// A block takes a chunk of tokens, a thread each. Their scores come into shared memory side by side
// (with the bias added), where each thread looks through its row by the functions that the CPU
// uses; rows too long for shared memory are read where they are. The block leaves the number of its
// assignments, of each expert's among them, and the sums of counts up to each token within the
// chunk. A second kernel adds what the chunks before have, which every block sums up for itself,
// and sums the experts' counts, a block each. Integers only, so no order matters.
#include "core/device/cuda/stream.h"
#include "core/ops/cuda/scan.h"
#include "core/ops/gate_types.h"
#include "core/ops/routing.h"
#include "core/ops/routing_math.h"

namespace adagate {
namespace cuda {
namespace {

constexpr int kMostThreads = 128;
constexpr int64_t kStagedBytes = 40 << 10;  // dynamic shared memory that needs no permission

// A token's scores where they lie.
template <class T>
struct BiasedScores {
  const T* p;
  const float* bias;
  ADAGATE_HD T operator[](int64_t e) const { return bias ? p[e] + static_cast<T>(bias[e]) : p[e]; }
};

// Odd: neighbours' rows begin in different banks.
ADAGATE_HD constexpr int64_t odd(int64_t n) {
  return n | 1;
}

template <class T>
constexpr int64_t staged_bytes(const SelectExpertsArgs& a, int threads) {
  const auto int_size = static_cast<int64_t>(sizeof(int32_t));
  const int64_t row =
      odd(a.experts) * static_cast<int64_t>(sizeof(T)) + odd(a.rule.k_max) * int_size;
  return threads * row + a.experts * int_size;
}

template <class T>
__device__ void stage_scores(const SelectExpertsArgs& a, int64_t first_token, T* scores) {
  const T* p = static_cast<const T*>(a.probabilities) + first_token * a.experts;
  const int64_t left = a.tokens - first_token;
  const int experts = static_cast<int>(a.experts);
  const int n = experts * static_cast<int>(left < blockDim.x ? left : blockDim.x);
#pragma unroll 4
  for (int i = threadIdx.x; i < n; i += blockDim.x) {
    const int t = i / experts, e = i % experts;
    scores[t * odd(experts) + e] = BiasedScores<T>{p + t * a.experts, a.bias}[e];
  }
}

// totals [chunks], histograms [chunks, experts]
template <class T, bool kStaged>
__global__ void select_experts(SelectExpertsArgs a, int32_t* totals, int32_t* histograms) {
  ADAGATE_DYNAMIC_SHARED(T, staged);  // scores, chosen experts, histogram
  ADAGATE_SHARED(int32_t, sums, kWarp);
  const int64_t first_token = static_cast<int64_t>(blockIdx.x) * blockDim.x;
  const int64_t t = first_token + threadIdx.x, k_max = a.rule.k_max;
  int32_t* chosen = a.chosen + t * k_max;
  int32_t* histogram = histograms + blockIdx.x * a.experts;
  if constexpr (kStaged) {
    auto* all_chosen = reinterpret_cast<int32_t*>(staged + blockDim.x * odd(a.experts));
    chosen = all_chosen + threadIdx.x * odd(k_max);
    histogram = all_chosen + blockDim.x * odd(k_max);
    stage_scores(a, first_token, staged);
  }
  for (int64_t e = threadIdx.x; e < a.experts; e += blockDim.x) histogram[e] = 0;
  __syncthreads();
  int32_t count = 0;
  if (t < a.tokens && (!a.mask || a.mask[t])) {
    const int64_t* address = a.addresses ? a.addresses + t : nullptr;
    if constexpr (kStaged) {
      const T* scores = staged + threadIdx.x * odd(a.experts);
      count = static_cast<int32_t>(select_token<T>(a.rule, scores, a.experts, address, chosen));
      for (int64_t i = 0; i < k_max; ++i) a.chosen[t * k_max + i] = chosen[i];
    } else {
      const T* p = static_cast<const T*>(a.probabilities) + t * a.experts;
      count = static_cast<int32_t>(
          select_token<T>(a.rule, BiasedScores<T>{p, a.bias}, a.experts, address, chosen));
    }
    for (int32_t i = 0; i < count; ++i) atomicAdd(histogram + chosen[i], 1);
  }
  const Scanned<int32_t> scanned = block_scan(count, sums);  // and everyone has counted
  if (t < a.tokens) a.row_start[t + 1] = scanned.up_to;
  if (threadIdx.x == 0) totals[blockIdx.x] = scanned.all;
  if constexpr (kStaged) {
    for (int64_t e = threadIdx.x; e < a.experts; e += blockDim.x)
      histograms[blockIdx.x * a.experts + e] = histogram[e];
  }
}

// The first `chunks` blocks finish row_start, one for each chunk; the others the experts' counts.
__global__ void finish_selection(SelectExpertsArgs a, int64_t chunks, const int32_t* totals,
                                 const int32_t* histograms) {
  ADAGATE_SHARED(int64_t, shared, kWarp);
  const int64_t chunk = blockIdx.x, expert = chunk - chunks;
  const int64_t n = expert < 0 ? chunk : chunks;
  int64_t sum = 0;
  for (int64_t c = threadIdx.x; c < n; c += blockDim.x)
    sum += expert < 0 ? totals[c] : histograms[c * a.experts + expert];
  sum = block_sum(sum, shared);
  if (expert >= 0) {
    if (threadIdx.x == 0) a.counts[expert] = sum;
    return;
  }
  const int64_t t = chunk * blockDim.x + threadIdx.x;
  if (t == 0) a.row_start[0] = 0;
  if (t < a.tokens && chunk > 0) a.row_start[t + 1] += static_cast<int32_t>(sum);
}

// A power of two of lanes per token, at least k_max where a warp has so many.
__global__ void compact_selection(CompactSelectionArgs a, int lanes) {
  const int lane = static_cast<int>(threadIdx.x) % lanes;
  for (int64_t t = global_thread() / lanes; t < a.tokens; t += grid_threads() / lanes) {
    const int32_t begin = a.row_start[t], count = a.row_start[t + 1] - begin;
    for (int32_t i = lane; i < count; i += lanes) a.expert[begin + i] = a.chosen[t * a.k_max + i];
  }
}

template <class T>
void launch_selection(CudaStream& stream, const SelectExpertsArgs& a) {
  int threads = kMostThreads;
  while (threads > kWarp && staged_bytes<T>(a, threads) > kStagedBytes) threads /= 2;
  const bool staged = staged_bytes<T>(a, threads) <= kStagedBytes;
  if (!staged) threads = kMostThreads;
  const int64_t needed = (a.tokens + threads - 1) / threads, chunks = needed > 0 ? needed : 1;
  const Scratch<int32_t> totals(stream, chunks), histograms(stream, chunks * a.experts);
  const auto grid = static_cast<unsigned>(chunks);
  if (staged) {
    ADAGATE_LAUNCH((select_experts<T, true>), grid, threads,
                   static_cast<size_t>(staged_bytes<T>(a, threads)), stream, a, totals.data(),
                   histograms.data());
  } else {
    ADAGATE_LAUNCH((select_experts<T, false>), grid, threads, 0, stream, a, totals.data(),
                   histograms.data());
  }
  ADAGATE_LAUNCH(finish_selection, static_cast<unsigned>(chunks + a.experts), threads, 0, stream, a,
                 chunks, totals.data(), histograms.data());
}

}  // namespace
}  // namespace cuda

void launch(CudaStream& stream, const SelectExpertsArgs& a) {
  visit_gate_type(a.type, [&](auto type) { cuda::launch_selection<decltype(type)>(stream, a); });
}

void launch(CudaStream& stream, const CompactSelectionArgs& a) {
  if (a.tokens == 0) return;
  int lanes = 1;
  while (lanes < cuda::kWarp && lanes < a.k_max) lanes *= 2;
  ADAGATE_LAUNCH(cuda::compact_selection, cuda::blocks_for(a.tokens * lanes, 256), 256, 0, stream,
                 a, lanes);
}

}  // namespace adagate
