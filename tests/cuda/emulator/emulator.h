// CUDA's language for the host's compiler: kernels compile as C++ and run on the CPU, every CUDA
// thread a fiber. Included by core/device/cuda/kernel.h in place of what nvcc knows; on NVIDIA's
// own runtime headers, whose types and functions are the same for both.
//
// What a kernel may use: the four macros below, barriers and warp functions (warp.h), atomics on
// integers (atomics.h), CUDA's functions on numbers (intrinsics.h), wmma (wmma.h).
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <mma.h>

#include "core/device/cuda/check.h"

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __constant__
#undef __launch_bounds__
#undef __forceinline__
#undef __noinline__
#undef __grid_constant__
#define __global__
#define __device__
#define __host__
#define __grid_constant__
#define __launch_bounds__(...)
#define __forceinline__ inline
// Memory that a kernel shares is poisoned, guarded and counted only when the macros give it.
#define __shared__ shared_memory_is_declared_by_ADAGATE_SHARED_alone
#define __constant__ constant_memory_is_not_emulated

#define threadIdx (::adagate::emulator::running_thread->thread)
#define blockIdx (::adagate::emulator::running_thread->block)
#define blockDim (::adagate::emulator::running_thread->block_dim)
#define gridDim (::adagate::emulator::running_thread->grid_dim)
#define warpSize 32

#include "tests/cuda/emulator/atomics.h"
#include "tests/cuda/emulator/engine.h"
#include "tests/cuda/emulator/intrinsics.h"
#include "tests/cuda/emulator/launch.h"
#include "tests/cuda/emulator/warp.h"
#include "tests/cuda/emulator/wmma.h"

// See core/device/cuda/kernel.h for what these are.
#define ADAGATE_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)            \
  ::adagate::emulator::launch(#kernel, (kernel), (grid), (block), (shared_bytes), \
                              (stream).handle() __VA_OPT__(, ) __VA_ARGS__)

#define ADAGATE_SHARED(T, name, n)   \
  static const char name##_line = 0; \
  T* const name = static_cast<T*>(::adagate::emulator::static_shared(&name##_line, sizeof(T) * (n)))

#define ADAGATE_DYNAMIC_SHARED(T, name) \
  T* const name = static_cast<T*>(::adagate::emulator::dynamic_shared())

#define ADAGATE_ALLOW_SHARED(kernel, shared_bytes)                                     \
  ADAGATE_CUDA_CHECK(cudaFuncSetAttribute(::adagate::emulator::kernel_address(kernel), \
                                          cudaFuncAttributeMaxDynamicSharedMemorySize, \
                                          static_cast<int>(shared_bytes)))
