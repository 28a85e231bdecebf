// The stable sort of assignments by expert: a counting sort in three launches.
//
// A warp takes a chunk of tokens, 32 tokens at a time, and 32 of their assignments at a time, which
// lie side by side. Lanes of one expert find each other by votes, and one of them adds their number
// to the expert's count: no two write to one place. The first launch leaves each chunk's counts,
// expert by expert; one block turns them into the rows where each chunk's assignments to each
// expert begin; the third launch goes over the chunks again and places every assignment behind
// those before it. How many assignments there are only row_start on the device says. Counts of up
// to kHeld experts are held in shared memory, those of more stay where they are.
#include "core/device/cuda/stream.h"
#include "core/ops/cuda/scan.h"
#include "core/ops/permute.h"

namespace adagate {
namespace cuda {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / kWarp;
constexpr int kScanThreads = 1024;
constexpr int64_t kHeld = 256;
constexpr int64_t kLeastTokens = 128, kMostChunks = 512;

struct Chunks {
  int64_t number, tokens;  // of each
  int bits;                // of an expert's number
};

// Lanes that are `active` and have this lane's value.
__device__ inline unsigned lanes_alike(int32_t value, int bits, bool active) {
  unsigned alike = __ballot_sync(kAllLanes, active);
  for (int bit = 0; bit < bits; ++bit) {
    const bool set = (value >> bit & 1) != 0;
    const unsigned vote = __ballot_sync(kAllLanes, set);
    alike &= set ? vote : ~vote;
  }
  return alike;
}

// One warp's chunk and its experts' counts or places.
struct ChunkOfWarp {
  int64_t chunk, begin, end;  // tokens
  int lane, bits;
  int32_t* next;  // of expert e: next[e * step]
  int64_t step;

  // counts [experts, chunks]
  __device__ ChunkOfWarp(const SortByExpertArgs& a, const Chunks& chunks, int32_t* counts,
                         int32_t* held)
      : chunk(static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp),
        begin(chunk * chunks.tokens),
        end(begin + chunks.tokens < a.tokens ? begin + chunks.tokens : a.tokens),
        lane(static_cast<int>(threadIdx.x) % kWarp),
        bits(chunks.bits) {
    const bool hold = a.experts <= kHeld;
    next = hold ? held + threadIdx.x / kWarp * a.experts : counts + chunk;
    step = hold ? 1 : chunks.number;
  }

  // The place of an assignment: the expert's next one, behind those of lower lanes; moves it on.
  __device__ int32_t take_place(int32_t expert, bool active) {
    const unsigned alike = lanes_alike(expert, bits, active);
    const unsigned below = alike & ((1u << lane) - 1);
    const int32_t place = active ? next[expert * step] + __popc(below) : 0;
    __syncwarp();  // all have read
    if (active && below == 0) next[expert * step] += __popc(alike);
    __syncwarp();
    return place;
  }

  // Calls visit(token, assignment, place) for each assignment of the chunk.
  template <class Visit>
  __device__ void for_each(const SortByExpertArgs& a, Visit visit) {
    for (int64_t first = begin; first < end; first += kWarp) {
      const int32_t start = a.row_start[first + lane < end ? first + lane : end];
      const int32_t last = a.row_start[first + kWarp < end ? first + kWarp : end];
      for (int32_t row = __shfl_sync(kAllLanes, start, 0); row < last; row += kWarp) {
        const int32_t i = row + lane;
        // The last of the 32 tokens that begins at i or before.
        int token = 0;
        for (int distance = kWarp / 2; distance > 0; distance /= 2)
          if (__shfl_sync(kAllLanes, start, token + distance) <= i) token += distance;
        const bool active = i < last;
        const int32_t place = take_place(active ? a.expert[i] : 0, active);
        if (active) visit(static_cast<int32_t>(first) + token, i, place);
      }
    }
  }
};

__global__ void count_assignments(SortByExpertArgs a, Chunks chunks, int32_t* counts) {
  ADAGATE_SHARED(int32_t, held, kWarps * kHeld);
  ChunkOfWarp mine(a, chunks, counts, held);
  if (mine.chunk >= chunks.number) return;
  for (int64_t e = mine.lane; e < a.experts; e += kWarp) mine.next[e * mine.step] = 0;
  __syncwarp();
  mine.for_each(a, [](int32_t, int32_t, int32_t) {});
  if (mine.step != 1) return;
  for (int64_t e = mine.lane; e < a.experts; e += kWarp)
    counts[e * chunks.number + mine.chunk] = mine.next[e];
}

// counts -> rows where they begin, in place, by one block.
__launch_bounds__(kScanThreads) __global__
    void scan_assignments(SortByExpertArgs a, Chunks chunks, int32_t* counts) {
  ADAGATE_SHARED(int32_t, shared, kWarp);
  const auto number = static_cast<uint32_t>(chunks.number);
  const int32_t total = scan_by_block<int32_t>(
      a.experts * chunks.number, shared, [=](int64_t i) { return counts[i]; },
      [=](int64_t i, int32_t before) {
        counts[i] = before;
        const uint32_t expert = static_cast<uint32_t>(i) / number;
        if (expert * number == i) a.offsets[expert] = before;
      });
  if (threadIdx.x == 0) a.offsets[a.experts] = total;
}

__global__ void place_assignments(SortByExpertArgs a, Chunks chunks, int32_t* begins) {
  ADAGATE_SHARED(int32_t, held, kWarps * kHeld);
  ChunkOfWarp mine(a, chunks, begins, held);
  if (mine.chunk >= chunks.number) return;
  if (mine.next != begins + mine.chunk) {
    for (int64_t e = mine.lane; e < a.experts; e += kWarp)
      mine.next[e] = begins[e * chunks.number + mine.chunk];
  }
  __syncwarp();
  mine.for_each(a, [=](int32_t token, int32_t i, int32_t place) {
    a.row[i] = place;
    a.token[place] = token;
  });
}

Chunks chunks_of(const SortByExpertArgs& a) {
  const int64_t wanted = (a.tokens + kMostChunks - 1) / kMostChunks;
  Chunks chunks{.number = 1, .tokens = kLeastTokens, .bits = 0};
  if (wanted > chunks.tokens) chunks.tokens = (wanted + kWarp - 1) / kWarp * kWarp;
  if (a.tokens > 0) chunks.number = (a.tokens + chunks.tokens - 1) / chunks.tokens;
  while ((int64_t{1} << chunks.bits) < a.experts) ++chunks.bits;
  return chunks;
}

}  // namespace
}  // namespace cuda

void launch(CudaStream& stream, const SortByExpertArgs& a) {
  const cuda::Chunks chunks = cuda::chunks_of(a);
  const cuda::Scratch<int32_t> counts(stream, a.experts * chunks.number);
  const auto grid = static_cast<unsigned>((chunks.number + cuda::kWarps - 1) / cuda::kWarps);
  ADAGATE_LAUNCH(cuda::count_assignments, grid, cuda::kThreads, 0, stream, a, chunks,
                 counts.data());
  ADAGATE_LAUNCH(cuda::scan_assignments, 1, cuda::kScanThreads, 0, stream, a, chunks,
                 counts.data());
  ADAGATE_LAUNCH(cuda::place_assignments, grid, cuda::kThreads, 0, stream, a, chunks,
                 counts.data());
}

}  // namespace adagate
