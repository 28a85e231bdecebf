// Gradients of a gate's product: dx (+)= dlogits W^T and dW (+)= x^T dlogits.
//
// dx: a block takes a tile of 64 tokens x 256 columns, a thread 8 tokens x two groups of 4 columns,
// summed over the experts in order; slices of 16 experts pass through shared memory. dx is written
// once, and where it accumulates read once.
// dW: a warp takes 128 columns x 8 or 16 experts in registers and runs over tokens: its lanes read
// x side by side, and all of them the same row of dlogits. Warps of a block take turns at the
// tokens of one slab and add up in their order; slabs are added in their order by a second kernel.
// Where slabs begin depends on sizes only. x is read once per 16 experts.
#include "core/device/cuda/stream.h"
#include "core/ops/cuda/tiles.h"
#include "core/ops/gate_types.h"
#include "core/ops/routing.h"

namespace adagate {
namespace cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarp;
constexpr int kColumns = 4;  // side by side in a thread

constexpr int kTokens = 8, kTileTokens = kTokens * kWarps;
constexpr int kGroup = kColumns * kWarp, kGroups = 2;  // columns of a warp's lanes side by side
constexpr int kSlice = 16;                             // experts in shared memory
constexpr int kWeightRow = kGroups * kGroup + 4, kLogitRow = kTileTokens + 4;

// Experts [first, first + kSlice) of W and dlogits, expert by expert; zeros past the last.
template <class W>
__device__ void put_slice(const GateProductBackwardArgs& a, int64_t first_token,
                          int64_t first_column, int64_t first, W* weights, W* logits) {
  const W* weight = static_cast<const W*>(a.weight);
  const W* dlogits = static_cast<const W*>(a.dlogits);
  const int e = static_cast<int>(threadIdx.x) % kSlice;
  const bool there = first + e < a.experts;
#pragma unroll 4
  for (int c = threadIdx.x / kSlice; c < kGroups * kGroup; c += kThreads / kSlice) {
    const int64_t column = first_column + c;
    weights[e * kWeightRow + c] =
        there && column < a.width ? weight[column * a.experts + first + e] : W(0);
  }
#pragma unroll
  for (int t = threadIdx.x / kSlice; t < kTileTokens; t += kThreads / kSlice) {
    const int64_t token = first_token + t;
    logits[e * kLogitRow + t] =
        there && token < a.tokens ? dlogits[token * a.stride + first + e] : W(0);
  }
}

template <class X, class W>
__device__ void put_columns(const GateProductBackwardArgs& a, const W (&sums)[kColumns], X* row,
                            int64_t column, bool packed) {
  if (packed) {
    if (column >= a.width) return;
    W values[kColumns] = {};
    if (a.accumulate_dx) load(values, row + column);
#pragma unroll
    for (int i = 0; i < kColumns; ++i) values[i] += sums[i];
    store(row + column, values);
    return;
  }
#pragma unroll
  for (int i = 0; i < kColumns; ++i) {
    if (column + i >= a.width) return;
    const W before = a.accumulate_dx ? static_cast<W>(row[column + i]) : W(0);
    row[column + i] = X(before + sums[i]);
  }
}

template <class X, class W>
__launch_bounds__(kThreads) __global__
    void gate_input_gradient(GateProductBackwardArgs a, bool packed) {
  ADAGATE_SHARED(W, weights, kSlice * kWeightRow);
  ADAGATE_SHARED(W, logits, kSlice * kLogitRow);
  const int64_t first_token = static_cast<int64_t>(blockIdx.x) * kTileTokens;
  const int64_t first_column = static_cast<int64_t>(blockIdx.y) * kGroups * kGroup;
  const int token = static_cast<int>(threadIdx.x) / kWarp * kTokens;
  const int column = static_cast<int>(threadIdx.x) % kWarp * kColumns;
  W sums[kTokens][kGroups][kColumns] = {};
  for (int64_t first = 0; first < a.experts; first += kSlice) {
    put_slice(a, first_token, first_column, first, weights, logits);
    __syncthreads();
#pragma unroll 4
    for (int e = 0; e < kSlice; ++e) {
      W dl[kTokens];
      load_pieces(dl, logits + e * kLogitRow + token);
#pragma unroll
      for (int g = 0; g < kGroups; ++g) {
        W w[kColumns];
        load_pieces(w, weights + e * kWeightRow + g * kGroup + column);
#pragma unroll
        for (int t = 0; t < kTokens; ++t)
#pragma unroll
          for (int i = 0; i < kColumns; ++i) sums[t][g][i] += dl[t] * w[i];
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
    if (first_token + token + t >= a.tokens) return;
    X* row = static_cast<X*>(a.dx) + (first_token + token + t) * a.width;
#pragma unroll
    for (int g = 0; g < kGroups; ++g)
      put_columns(a, sums[t][g], row, first_column + g * kGroup + column, packed);
  }
}

// partial [slabs, width, stride]: each slab's sum over its tokens.
template <class X, class W, int kExperts, bool kPacked>
__launch_bounds__(kThreads, 2) __global__
    void gate_weight_gradient(GateProductBackwardArgs a, int64_t slab_tokens, W* partial) {
  constexpr int kRow = kGroup + 4;
  [[maybe_unused]] constexpr int kInFlight =
      kExperts * sizeof(X) > 32 ? 2 : 4;  // tokens: as many as registers hold
  ADAGATE_SHARED(W, shared, kExperts * kRow);
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int column = static_cast<int>(threadIdx.x) % kWarp * kColumns;
  const int64_t first_column = static_cast<int64_t>(blockIdx.x) * kGroup;
  const int64_t first_expert = static_cast<int64_t>(blockIdx.y) * kExperts;
  const int64_t begin = blockIdx.z * slab_tokens;
  const int64_t end = begin + slab_tokens < a.tokens ? begin + slab_tokens : a.tokens;
  const X* x = static_cast<const X*>(a.x);
  const W* dlogits = static_cast<const W*>(a.dlogits) + first_expert;
  W sums[kExperts][kColumns] = {};
  // Lanes past the last column read the first ones', which are not used.
  const int64_t mine = first_column + column < a.width ? first_column + column : 0;
#pragma unroll kInFlight
  for (int64_t t = begin + warp; t < end; t += kWarps) {
    W xs[kColumns], dl[kExperts];
    if constexpr (kPacked) {
      load(xs, x + t * a.width + mine);
      load_pieces(dl, dlogits + t * a.stride);
    } else {
      load_some(xs, x + t * a.width, mine, a.width);
      load_some(dl, dlogits + t * a.stride, 0, kExperts);
    }
#pragma unroll
    for (int e = 0; e < kExperts; ++e)
#pragma unroll
      for (int i = 0; i < kColumns; ++i) sums[e][i] += dl[e] * xs[i];
  }
  for (int turn = 0; turn < kWarps; ++turn) {
    if (turn == warp) {
#pragma unroll
      for (int e = 0; e < kExperts; ++e)
#pragma unroll
        for (int i = 0; i < kColumns; ++i) {
          W& sum = shared[e * kRow + column + i];
          sum = turn > 0 ? sum + sums[e][i] : sums[e][i];
        }
    }
    __syncthreads();
  }
  partial += (blockIdx.z * a.width + first_column) * a.stride + first_expert;
  for (int i = threadIdx.x; i < kGroup * kExperts; i += kThreads) {
    const int c = i / kExperts, e = i % kExperts;
    if (first_column + c < a.width) partial[c * a.stride + e] = shared[e * kRow + c];
  }
}

template <class W>
__global__ void add_gate_slabs(GateProductBackwardArgs a, int64_t slabs, const W* partial) {
  W* dweight = static_cast<W*>(a.dweight);
  for (int64_t i = global_thread(); i < a.width * a.experts; i += grid_threads()) {
    const W* from = partial + i / a.experts * a.stride + i % a.experts;
    W sum = 0;
#pragma unroll 8
    for (int64_t s = 0; s < slabs; ++s) sum += from[s * a.width * a.stride];
    dweight[i] = a.accumulate_dweight ? dweight[i] + sum : sum;
  }
}

template <class X>
bool packs_of_columns(const GateProductBackwardArgs& a, const void* rows) {
  return a.width % kColumns == 0 && reinterpret_cast<uintptr_t>(rows) % (kColumns * sizeof(X)) == 0;
}

template <class X, class W>
void launch_input_gradient(CudaStream& stream, const GateProductBackwardArgs& a) {
  if (a.tokens == 0) return;
  const dim3 grid(static_cast<unsigned>((a.tokens + kTileTokens - 1) / kTileTokens),
                  static_cast<unsigned>((a.width + kGroups * kGroup - 1) / (kGroups * kGroup)));
  ADAGATE_LAUNCH((gate_input_gradient<X, W>), grid, kThreads, 0, stream, a,
                 packs_of_columns<X>(a, a.dx));
}

template <class X, class W, int kExperts>
void launch_weight_gradient(CudaStream& stream, const GateProductBackwardArgs& a) {
  // About two blocks for each multiprocessor of a large GPU, whatever the one at hand has.
  constexpr int64_t kBlocks = 264, kLeastTokens = 128;
  const int64_t across = (a.width + kGroup - 1) / kGroup, chunks = a.stride / kExperts;
  const int64_t most = kBlocks / (across * chunks) > 0 ? kBlocks / (across * chunks) : 1;
  const int64_t wanted = (a.tokens + most - 1) / most;
  const int64_t slab = wanted > kLeastTokens ? wanted : kLeastTokens;
  const int64_t slabs = (a.tokens + slab - 1) / slab;
  const Scratch<W> partial(stream, (slabs > 0 ? slabs : 1) * a.width * a.stride);
  if (slabs > 0) {
    const dim3 grid(static_cast<unsigned>(across), static_cast<unsigned>(chunks),
                    static_cast<unsigned>(slabs));
    if (packs_of_columns<X>(a, a.x) && packs(a.stride, sizeof(W), a.dlogits)) {
      ADAGATE_LAUNCH((gate_weight_gradient<X, W, kExperts, true>), grid, kThreads, 0, stream, a,
                     slab, partial.data());
    } else {
      ADAGATE_LAUNCH((gate_weight_gradient<X, W, kExperts, false>), grid, kThreads, 0, stream, a,
                     slab, partial.data());
    }
  }
  ADAGATE_LAUNCH(add_gate_slabs<W>, blocks_for(a.width * a.experts, kThreads), kThreads, 0, stream,
                 a, slabs, partial.data());
}

}  // namespace
}  // namespace cuda

void launch(CudaStream& stream, const GateProductBackwardArgs& a) {
  visit_gate(a.x_type, a.type, [&](auto x, auto w) {
    using X = decltype(x);
    using W = decltype(w);
    if (a.dx) cuda::launch_input_gradient<X, W>(stream, a);
    if (!a.dweight) return;
    if constexpr (sizeof(W) == 4) {
      if (a.stride % 16 == 0) return cuda::launch_weight_gradient<X, W, 16>(stream, a);
    }
    cuda::launch_weight_gradient<X, W, kGateExpertTile>(stream, a);
  });
}

}  // namespace adagate
