// Elements whose type is known at run time only: for kernels whose types mix too freely, and too
// rarely, for an instance each. The type is the same for all threads, so the branch costs little.
#pragma once

#include <type_traits>

#include "core/base/dtype.h"
#include "core/device/cuda/kernel.h"

namespace adagate::cuda {

// Element i, converted. T: the type, or void where `type` tells it.
template <class C, class T = void>
__device__ inline C read_element(const void* data, DType type, int64_t i) {
  if constexpr (!std::is_void_v<T>) {
    return static_cast<C>(static_cast<const T*>(data)[i]);
  } else {
    if (type == DType::f32) return static_cast<C>(static_cast<const float*>(data)[i]);
    if (type == DType::bf16)
      return static_cast<C>(static_cast<float>(static_cast<const bfloat16*>(data)[i]));
    return static_cast<C>(static_cast<const double*>(data)[i]);
  }
}

template <class T = void, class C>
__device__ inline void write_element(void* data, DType type, int64_t i, C value) {
  if constexpr (!std::is_void_v<T>) {
    static_cast<T*>(data)[i] = T(value);
  } else if (type == DType::f32) {
    static_cast<float*>(data)[i] = static_cast<float>(value);
  } else if (type == DType::bf16) {
    static_cast<bfloat16*>(data)[i] = bfloat16(value);
  } else {
    static_cast<double*>(data)[i] = static_cast<double>(value);
  }
}

}  // namespace adagate::cuda
