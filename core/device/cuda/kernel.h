// What CUDA kernels are written with, and how they are started. The same sources are compiled by
// nvcc for GPUs, and by the host's compiler for the tests' emulator (tests/cuda/emulator), which
// runs every CUDA thread as a fiber: so kernels take their shared memory and their launches from
// the macros below, and keep to what both know (no inline PTX outside files that the build leaves
// out of the emulator).
//
//   template <class T>
//   __global__ void double_it(T* x, int64_t n) { ... }
//
//   ADAGATE_LAUNCH(double_it<T>, blocks_for(n, 256), 256, 0, stream, x, n);
#pragma once

#include <cstdint>

#ifdef ADAGATE_CUDA_EMULATOR
// The header's name. It defines the language (threadIdx, __syncthreads, ..) and, on NVIDIA's own
// runtime header, the four macros.
#include ADAGATE_CUDA_EMULATOR
#else
#include <cuda_runtime.h>

#include "core/device/cuda/check.h"

// kernel<<<grid, block, shared_bytes>>>(...) on a CudaStream. Throws Error, which names the kernel,
// when the launch is refused. A kernel with several template arguments stands in parentheses.
#define ADAGATE_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                    \
  do {                                                                                    \
    (kernel)<<<(grid), (block), (shared_bytes), (stream).handle()>>>(__VA_ARGS__);        \
    ::adagate::cuda::check_status(cudaGetLastError(), "the launch of " #kernel, __FILE__, \
                                  __LINE__);                                              \
  } while (false)

// T name[n] in the block's shared memory, aligned to 128 bytes (wmma needs 32): from raw bytes,
// since neither compiler takes class types with constructors there.
#define ADAGATE_SHARED(T, name, n)                                       \
  __shared__ __align__(128) unsigned char name##_bytes[sizeof(T) * (n)]; \
  T* const name = reinterpret_cast<T*>(name##_bytes)

// T name[], of the launch's shared_bytes. One a kernel.
#define ADAGATE_DYNAMIC_SHARED(T, name)                                  \
  extern __shared__ __align__(128) unsigned char dynamic_shared_bytes[]; \
  T* const name = reinterpret_cast<T*>(dynamic_shared_bytes)

// Lets a kernel have more than 48 KiB of shared memory; before its launch.
#define ADAGATE_ALLOW_SHARED(kernel, shared_bytes)                                               \
  ADAGATE_CUDA_CHECK(cudaFuncSetAttribute((kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, \
                                          static_cast<int>(shared_bytes)))
#endif

namespace adagate::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// Blocks of `threads` for n elements, `each` of them a thread; at least one, at most kMaxBlocks: so
// kernels over elements loop with stride gridDim.x * blockDim.x * each.
constexpr int64_t kMaxBlocks = 65535;
inline unsigned blocks_for(int64_t n, int64_t threads, int64_t each = 1) {
  int64_t blocks = (n + threads * each - 1) / (threads * each);
  return static_cast<unsigned>(blocks < 1 ? 1 : blocks > kMaxBlocks ? kMaxBlocks : blocks);
}

// This thread among all of a one-dimensional grid, and how many there are.
__device__ inline int64_t global_thread() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ inline int64_t grid_threads() {
  return static_cast<int64_t>(gridDim.x) * blockDim.x;
}

}  // namespace adagate::cuda
