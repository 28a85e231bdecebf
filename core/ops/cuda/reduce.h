// Sums and maxima over the threads of a warp and of a block, in an order that depends on nothing
// but the block's size: the same bits every time.
#pragma once

#include "core/device/cuda/kernel.h"

namespace adagate::cuda {

struct Add {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct Max {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};

// Over all 32 lanes, which all get the result.
template <class T, class Combine>
__device__ inline T warp_reduce(T value, Combine combine) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2)
    value = combine(value, __shfl_xor_sync(kAllLanes, value, distance));
  return value;
}
template <class T>
__device__ inline T warp_sum(T value) {
  return warp_reduce(value, Add{});
}
template <class T>
__device__ inline T warp_max(T value) {
  return warp_reduce(value, Max{});
}

// Over all threads of a one-dimensional block of whole warps, which all get the result. `shared`
// has room for 32 values of the caller's, for this call alone until the block's next barrier.
template <class T, class Combine>
__device__ inline T block_reduce(T value, T neutral, T* shared, Combine combine) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int warps = blockDim.x / kWarp;
  value = warp_reduce(value, combine);
  __syncthreads();  // who reads `shared` of a call before is done
  if (lane == 0) shared[warp] = value;
  __syncthreads();
  return warp_reduce(lane < warps ? shared[lane] : neutral, combine);
}
template <class T>
__device__ inline T block_sum(T value, T* shared) {
  return block_reduce(value, T(0), shared, Add{});
}

}  // namespace adagate::cuda
