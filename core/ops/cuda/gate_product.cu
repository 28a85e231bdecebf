// Logits and softmax of a gate, in the gate's type.
//
// A block takes a tile of tokens times kExperts experts, a thread kTokens tokens times 4 experts of
// it. The width passes through shared memory in slices of kDepth, the next slice on its way in
// registers while this one is multiplied. Every dot product is summed by one thread from the first
// column to the last, so a token's bits depend on nothing but its row: a library's product may sum
// differently for other row counts, and near the threshold that flips decisions.
// Where the tile holds all experts, a thread per token makes the softmax in shared memory and the
// block writes its rows side by side: x is read once, probabilities are written once. More experts
// than 64 are several tiles, whose logits a second kernel (a warp per token) turns into
// probabilities in place.
#include <cmath>
#include <limits>

#include "core/device/cuda/stream.h"
#include "core/ops/cuda/reduce.h"
#include "core/ops/cuda/tiles.h"
#include "core/ops/gate_types.h"
#include "core/ops/routing.h"

namespace adagate {
namespace cuda {
namespace {

constexpr int kGateThreads = 128;
constexpr int kDepth = 32;         // columns of x in shared memory
constexpr int kThreadExperts = 4;  // of each thread

template <class X, class W, int kExperts, int kTokens>
struct GateTile {
  static constexpr int kAcross = kExperts / kThreadExperts;  // threads side by side
  static constexpr int kTileTokens = kGateThreads / kAcross * kTokens;
  static constexpr int kStride = kTileTokens + 4;  // of a column of x: whole pieces of 16 bytes
  static constexpr int kRow = kExperts + 1;        // of a token's logits: odd, for the banks
  static constexpr int kSize =
      kDepth * kStride > kTileTokens* kRow ? kDepth* kStride : kTileTokens* kRow;
  static constexpr int kPacks = kTileTokens * kDepth / kPack<X> / kGateThreads;  // of each thread
  static constexpr int kWeights = kDepth * kExperts / kGateThreads;

  // One thread's share of a slice on its way to shared memory. Neighbours take neighbouring tokens,
  // so that their stores fall into different banks.
  X x[kPacks][kPack<X>];
  W w[kWeights];

  __device__ void fetch(const GateScoresArgs& a, int64_t first_token, int64_t first_expert,
                        int64_t begin, bool packed) {
    const X* rows = static_cast<const X*>(a.x);
    const int64_t left = a.tokens - first_token;
    if (packed) {
#pragma unroll
      for (int i = 0; i < kPacks; ++i) {
        const int at = threadIdx.x + i * kGateThreads, token = at % kTileTokens;
        const int64_t column = begin + at / kTileTokens * kPack<X>;
        if (token < left && column < a.width) {
          load(x[i], rows + (first_token + token) * a.width + column);
        } else {
          load_some(x[i], rows, 0, 0);
        }
      }
    } else {
#pragma unroll
      for (int i = 0; i < kPacks; ++i) {
        const int at = threadIdx.x + i * kGateThreads, token = at % kTileTokens;
        load_some(x[i], rows + (first_token + token) * a.width, begin + at / kTileTokens * kPack<X>,
                  token < left ? a.width : 0);
      }
    }
    const W* weight = static_cast<const W*>(a.weight);
#pragma unroll
    for (int i = 0; i < kWeights; ++i) {
      const int at = threadIdx.x + i * kGateThreads;
      const int64_t column = begin + at / kExperts, expert = first_expert + at % kExperts;
      const bool inside = column < a.width && expert < a.experts;
      w[i] = inside ? weight[column * a.experts + expert] : W(0);
    }
  }

  // x_tile [kDepth, kStride], w_tile [kDepth, kExperts]
  __device__ void put(W* x_tile, W* w_tile) const {
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      const int at = threadIdx.x + i * kGateThreads;
      W* to = x_tile + at / kTileTokens * kPack<X> * kStride + at % kTileTokens;
#pragma unroll
      for (int j = 0; j < kPack<X>; ++j) to[j * kStride] = static_cast<W>(x[i][j]);
    }
#pragma unroll
    for (int i = 0; i < kWeights; ++i) w_tile[threadIdx.x + i * kGateThreads] = w[i];
  }
};

// logits -> probabilities in place, by one thread.
template <class W>
__device__ void softmax_row(W* row, int experts, W* log_sum_exp, W* entropy) {
  W largest = row[0];
  for (int e = 1; e < experts; ++e) largest = Max{}(largest, row[e]);
  W sum = 0, weighted = 0;  // of exp(l - max), and of that times (l - max)
  for (int e = 0; e < experts; ++e) {
    const W shifted = row[e] - largest;
    row[e] = std::exp(shifted);
    sum += row[e];
    weighted += row[e] * shifted;
  }
  for (int e = 0; e < experts; ++e) row[e] /= sum;
  const W log_sum = std::log(sum);
  *log_sum_exp = largest + log_sum;
  *entropy = log_sum - weighted / sum;
}

// rows [tokens, kRow] of logits in shared memory -> all results of these tokens.
template <class Tile, class W>
__device__ void finish_tile(const GateScoresArgs& a, W* rows, int64_t first_token) {
  const int experts = static_cast<int>(a.experts);
  const int64_t left = a.tokens - first_token;
  const int tokens = left < Tile::kTileTokens ? static_cast<int>(left) : Tile::kTileTokens;
  for (int t = threadIdx.x; t < tokens; t += kGateThreads)
    softmax_row(rows + t * Tile::kRow, experts, static_cast<W*>(a.log_sum_exp) + first_token + t,
                static_cast<W*>(a.entropy) + first_token + t);
  __syncthreads();
  W* to = static_cast<W*>(a.probabilities) + first_token * a.experts;
  for (int i = threadIdx.x; i < tokens * experts; i += kGateThreads)
    to[i] = rows[i / experts * Tile::kRow + i % experts];
}

template <class X, class W, int kExperts, int kTokens>
__launch_bounds__(kGateThreads) __global__ void gate_scores(GateScoresArgs a, bool packed) {
  using Tile = GateTile<X, W, kExperts, kTokens>;
  ADAGATE_SHARED(W, x_tile, Tile::kSize);
  ADAGATE_SHARED(W, w_tile, kDepth * kExperts);
  const int64_t first_token = static_cast<int64_t>(blockIdx.x) * Tile::kTileTokens;
  const int64_t first_expert = static_cast<int64_t>(blockIdx.y) * kExperts;
  const int token = static_cast<int>(threadIdx.x) / Tile::kAcross * kTokens;
  const int expert = static_cast<int>(threadIdx.x) % Tile::kAcross * kThreadExperts;
  W sums[kTokens][kThreadExperts] = {};
  Tile slice;
  slice.fetch(a, first_token, first_expert, 0, packed);
  for (int64_t begin = 0; begin < a.width; begin += kDepth) {
    slice.put(x_tile, w_tile);
    __syncthreads();
    if (begin + kDepth < a.width) slice.fetch(a, first_token, first_expert, begin + kDepth, packed);
#pragma unroll 8
    for (int k = 0; k < kDepth; ++k) {
      W xs[kTokens], ws[kThreadExperts];
      load_pieces(xs, x_tile + k * Tile::kStride + token);
      load_pieces(ws, w_tile + k * kExperts + expert);
#pragma unroll
      for (int i = 0; i < kTokens; ++i)
#pragma unroll
        for (int j = 0; j < kThreadExperts; ++j) sums[i][j] += xs[i] * ws[j];
    }
    __syncthreads();
  }
  const bool whole = a.experts <= kExperts;
  W* logits = static_cast<W*>(a.probabilities);
#pragma unroll
  for (int i = 0; i < kTokens; ++i)
#pragma unroll
    for (int j = 0; j < kThreadExperts; ++j) {
      const int64_t t = first_token + token + i, e = first_expert + expert + j;
      if (whole) {
        x_tile[(token + i) * Tile::kRow + expert + j] = sums[i][j];
      } else if (t < a.tokens && e < a.experts) {
        logits[t * a.experts + e] = sums[i][j];
      }
    }
  if (!whole) return;
  __syncthreads();
  finish_tile<Tile>(a, x_tile, first_token);
}

// A warp per token, for more experts than a tile has: each lane takes every 32nd.
template <class W>
__global__ void gate_softmax(GateScoresArgs a) {
  const int lane = threadIdx.x % kWarp;
  for (int64_t t = global_thread() / kWarp; t < a.tokens; t += grid_threads() / kWarp) {
    W* row = static_cast<W*>(a.probabilities) + t * a.experts;
    W largest = -std::numeric_limits<W>::infinity();
    for (int64_t e = lane; e < a.experts; e += kWarp) largest = Max{}(largest, row[e]);
    largest = warp_max(largest);
    W sum = 0, weighted = 0;
    for (int64_t e = lane; e < a.experts; e += kWarp) {
      const W shifted = row[e] - largest, p = std::exp(shifted);
      row[e] = p;
      sum += p;
      weighted += p * shifted;
    }
    sum = warp_sum(sum);
    weighted = warp_sum(weighted);
    for (int64_t e = lane; e < a.experts; e += kWarp) row[e] /= sum;
    const W log_sum = std::log(sum);
    if (lane > 0) continue;
    static_cast<W*>(a.log_sum_exp)[t] = largest + log_sum;
    static_cast<W*>(a.entropy)[t] = log_sum - weighted / sum;
  }
}

template <class X, class W, int kExperts, int kTokens>
void launch_scores(CudaStream& stream, const GateScoresArgs& a) {
  constexpr int64_t kTileTokens = GateTile<X, W, kExperts, kTokens>::kTileTokens;
  const dim3 grid(static_cast<unsigned>((a.tokens + kTileTokens - 1) / kTileTokens),
                  static_cast<unsigned>((a.experts + kExperts - 1) / kExperts));
  ADAGATE_LAUNCH((gate_scores<X, W, kExperts, kTokens>), grid, kGateThreads, 0, stream, a,
                 packs(a.width, sizeof(X), a.x));
  if (a.experts > kExperts)
    ADAGATE_LAUNCH(gate_softmax<W>, blocks_for(a.tokens, 8), 8 * kWarp, 0, stream, a);
}

}  // namespace
}  // namespace cuda

void launch(CudaStream& stream, const GateScoresArgs& a) {
  if (a.tokens == 0) return;
  visit_gate(a.x_type, a.type, [&](auto x, auto w) {
    using X = decltype(x);
    using W = decltype(w);
    if constexpr (sizeof(W) == 8) {
      cuda::launch_scores<X, W, 16, 4>(stream, a);
    } else if (a.experts <= 8) {
      cuda::launch_scores<X, W, 8, 2>(stream, a);
    } else if (a.experts <= 16) {
      cuda::launch_scores<X, W, 16, 4>(stream, a);
    } else if (a.experts <= 32) {
      cuda::launch_scores<X, W, 32, 4>(stream, a);
    } else {
      cuda::launch_scores<X, W, 64, 8>(stream, a);
    }
  });
}

}  // namespace adagate
