// A warp as several groups of lanes that each work on one token: rows of a gate are short.
#pragma once

#include <type_traits>

#include "core/ops/cuda/reduce.h"

namespace adagate::cuda {

// Over the kLanes lanes of a group, which all get the result. All lanes of the warp call it.
template <int kLanes, class T, class Combine>
__device__ inline T group_reduce(T value, Combine combine) {
#pragma unroll
  for (int distance = kLanes / 2; distance > 0; distance /= 2)
    value = combine(value, __shfl_xor_sync(kAllLanes, value, distance));
  return value;
}

// The token that this lane works on first, how many tokens all warps of the grid take in a round,
// and the lane's place in its group. Lanes of a warp go through their rounds together, so a round
// begins as long as the first token of the warp's exists.
template <int kLanes>
struct LaneGroup {
  static constexpr int kTokens = kWarp / kLanes;  // of a warp
  int64_t first, step;
  int token, lane;

  __device__ LaneGroup()
      : first(global_thread() / kWarp * kTokens),
        step(grid_threads() / kWarp * kTokens),
        token(static_cast<int>(threadIdx.x) % kWarp / kLanes),
        lane(static_cast<int>(threadIdx.x) % kLanes) {}
};

// Calls f with the number of lanes that suit rows of so many columns.
template <class F>
void visit_lanes(int64_t columns, F&& f) {
  if (columns <= 8) return f(std::integral_constant<int, 8>{});
  if (columns <= 16) return f(std::integral_constant<int, 16>{});
  f(std::integral_constant<int, kWarp>{});
}

}  // namespace adagate::cuda
