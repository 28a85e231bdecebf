// Prefix sums over the threads of a warp, of a block, and over an array by one block. Of integers,
// so no order of adding can change a result.
#pragma once

#include "core/ops/cuda/reduce.h"

namespace adagate::cuda {

// Sum of the values of the lanes up to this one, its own included.
template <class T>
__device__ inline T warp_scan(T value) {
  const int lane = threadIdx.x % kWarp;
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const T below = __shfl_up_sync(kAllLanes, value, distance);
    if (lane >= distance) value += below;
  }
  return value;
}

// Sum of the values of the threads up to this one, its own included, and of all threads, in a
// one-dimensional block of whole warps. `shared` is as for block_reduce().
template <class T>
struct Scanned {
  T up_to, all;
};
template <class T>
__device__ inline Scanned<T> block_scan(T value, T* shared) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int warps = blockDim.x / kWarp;
  value = warp_scan(value);
  __syncthreads();  // who reads `shared` of a call before is done
  if (lane == kWarp - 1) shared[warp] = value;
  __syncthreads();
  const T sums = warp_scan(lane < warps ? shared[lane] : T(0));
  const T before = __shfl_sync(kAllLanes, sums, warp > 0 ? warp - 1 : 0);
  return {warp > 0 ? value + before : value, __shfl_sync(kAllLanes, sums, kWarp - 1)};
}

// Calls store(i, sum of load(0) .. load(i - 1)) for each i < n, by one block; returns the sum of
// all. Each thread takes a few neighbours a round. load(i) is called before store(i), which may
// overwrite what it reads.
template <class T, class Load, class Store>
__device__ inline T scan_by_block(int64_t n, T* shared, Load load, Store store) {
  constexpr int kEach = 4;
  T carry = 0;
  for (int64_t begin = 0; begin < n; begin += static_cast<int64_t>(blockDim.x) * kEach) {
    const int64_t first = begin + static_cast<int64_t>(threadIdx.x) * kEach;
    T values[kEach], sum = 0;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      values[i] = first + i < n ? load(first + i) : T(0);
      sum += values[i];
    }
    const Scanned<T> scanned = block_scan(sum, shared);
    T before = carry + scanned.up_to - sum;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      if (first + i < n) store(first + i, before);
      before += values[i];
    }
    carry += scanned.all;
  }
  return carry;
}

}  // namespace adagate::cuda
