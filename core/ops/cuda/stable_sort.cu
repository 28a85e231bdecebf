// Radix sort by digits of 8 bits, the lowest first; each pass keeps the order of equal digits. A
// block has a chunk of the keys. Per pass: (1) blocks count the digits of their chunks; (2) one
// block turns the counts, by digit and then chunk, into places; (3) blocks write their keys there,
// warps and lanes in order: a key's place among equal digits is the number of those before it,
// which votes count. No place depends on which thread comes first. A pass reads the keys twice.
#include <algorithm>
#include <bit>

#include "core/base/error.h"
#include "core/ops/cuda/scan.h"
#include "core/ops/cuda/stable_sort.h"

namespace adagate::cuda {
namespace {

constexpr int kBits = 8, kDigits = 1 << kBits;
constexpr int kThreads = kDigits, kWarps = kThreads / kWarp;
constexpr int kRounds = 8;  // of 32 keys a warp
constexpr int kPerWarp = kRounds * kWarp, kChunk = kWarps * kPerWarp;

// Keys with their places in the beginning; `place` null: those are 0, 1, 2, ..
struct Keys {
  const int32_t* key;
  const int32_t* place;
  int n;
  int32_t end;
  int shift;  // of this pass's digit

  __device__ int32_t at(int i) const {
    const int32_t k = key[i];
    return k < 0 || k > end ? end : k;
  }
  __device__ int digit(int32_t k) const { return (k >> shift) & (kDigits - 1); }
};

__global__ void __launch_bounds__(kThreads) count_digits(Keys keys, int32_t* counts, int chunks) {
  ADAGATE_SHARED(int32_t, found, kDigits);
  found[threadIdx.x] = 0;
  __syncthreads();
  for (int r = 0; r < kChunk / kThreads; ++r) {
    const int i = static_cast<int>(blockIdx.x) * kChunk + r * kThreads + threadIdx.x;
    if (i < keys.n) atomicAdd(&found[keys.digit(keys.at(i))], 1);
  }
  __syncthreads();
  counts[static_cast<int64_t>(threadIdx.x) * chunks + blockIdx.x] = found[threadIdx.x];
}

__global__ void __launch_bounds__(1024) counts_to_places(int32_t* counts, int64_t n) {
  ADAGATE_SHARED(int32_t, shared, kWarp);
  scan_by_block<int32_t>(
      n, shared, [&](int64_t i) { return counts[i]; },
      [&](int64_t i, int32_t before) { counts[i] = before; });
}

// The lanes whose digit is that of this lane; `there`: whether this lane has one.
__device__ inline unsigned lanes_of_digit(int digit, bool there) {
  unsigned same = __ballot_sync(kAllLanes, there);
#pragma unroll
  for (int bit = 0; bit < kBits; ++bit) {
    const bool set = (digit >> bit & 1) != 0;
    const unsigned votes = __ballot_sync(kAllLanes, set);
    same &= set ? votes : ~votes;
  }
  return same;
}

__global__ void __launch_bounds__(kThreads)
    place_keys(Keys keys, const int32_t* places, int chunks, int32_t* key, int32_t* place) {
  ADAGATE_SHARED(int32_t, next, kWarps * kDigits);  // of each warp: how many, then where to
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  int32_t* mine = next + warp * kDigits;
  for (int d = lane; d < kDigits; d += kWarp) mine[d] = 0;
  __syncwarp();
  const int begin = static_cast<int>(blockIdx.x) * kChunk + warp * kPerWarp + lane;
  unsigned same[kRounds];
  int32_t held[kRounds];
#pragma unroll
  for (int r = 0; r < kRounds; ++r) {
    const bool there = begin + r * kWarp < keys.n;
    held[r] = there ? keys.at(begin + r * kWarp) : 0;
    same[r] = lanes_of_digit(keys.digit(held[r]), there);
    if (there && (same[r] & ((1u << lane) - 1)) == 0) mine[keys.digit(held[r])] += __popc(same[r]);
    __syncwarp();
  }
  __syncthreads();
  int32_t to = places[static_cast<int64_t>(threadIdx.x) * chunks + blockIdx.x];
  for (int w = 0; w < kWarps; ++w) {
    const int32_t count = next[w * kDigits + threadIdx.x];
    next[w * kDigits + threadIdx.x] = to;
    to += count;
  }
  __syncthreads();
#pragma unroll
  for (int r = 0; r < kRounds; ++r) {
    const int i = begin + r * kWarp, digit = keys.digit(held[r]);
    const int before = __popc(same[r] & ((1u << lane) - 1));
    const int32_t first = mine[digit];
    __syncwarp();
    if (i < keys.n) {
      key[first + before] = held[r];
      place[first + before] = keys.place ? keys.place[i] : i;
      if (before == 0) mine[digit] = first + __popc(same[r]);
    }
    __syncwarp();
  }
}

}  // namespace

void sort_stably(CudaStream& stream, const int32_t* keys, int64_t n, int32_t end, int32_t* sorted,
                 int32_t* order) {
  check(n + kChunk < int64_t{1} << 31, "CUDA: {} keys are too many to sort", n);
  if (n == 0) return;
  const int bits = std::bit_width(static_cast<uint32_t>(end));
  const int passes = std::max(1, (bits + kBits - 1) / kBits);
  const auto chunks = static_cast<int>((n + kChunk - 1) / kChunk);
  Scratch<int32_t> counts(stream, int64_t{kDigits} * chunks);
  Scratch<int32_t> other_keys(stream, n), other_places(stream, n);
  // The last pass writes to where the results belong.
  const struct {
    int32_t *key, *place;
  } to[2] = {{sorted, order}, {other_keys.data(), other_places.data()}};
  Keys from{keys, nullptr, static_cast<int>(n), end, 0};
  for (int pass = 0; pass < passes; ++pass) {
    from.shift = pass * kBits;
    int32_t* key = to[(passes - 1 - pass) % 2].key;
    int32_t* place = to[(passes - 1 - pass) % 2].place;
    const auto blocks = static_cast<unsigned>(chunks);
    ADAGATE_LAUNCH(count_digits, blocks, kThreads, 0, stream, from, counts.data(), chunks);
    ADAGATE_LAUNCH(counts_to_places, 1, 1024, 0, stream, counts.data(), int64_t{kDigits} * chunks);
    ADAGATE_LAUNCH(place_keys, blocks, kThreads, 0, stream, from, counts.data(), chunks, key,
                   place);
    from.key = key;
    from.place = place;
  }
}

}  // namespace adagate::cuda
