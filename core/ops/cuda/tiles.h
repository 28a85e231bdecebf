// What kernels that multiply tiles of small matrices share: values between memory and registers.
#pragma once

#include "core/ops/cuda/elements.h"

namespace adagate::cuda {

// values = from[0 .. kWidth), in pieces of at most 16 bytes, to whose size `from` is aligned.
template <int kWidth, class C, class T>
__device__ inline void load_pieces(C (&values)[kWidth], const T* from) {
  constexpr int kPiece = kWidth < kPack<T> ? kWidth : kPack<T>;
  static_assert(kWidth % kPiece == 0);
#pragma unroll
  for (int first = 0; first < kWidth; first += kPiece) {
    C piece[kPiece];
    load(piece, from + first);
#pragma unroll
    for (int i = 0; i < kPiece; ++i) values[first + i] = piece[i];
  }
}

// values = from[first .. first + kWidth) as far as there are `cols`, then zeros.
template <int kWidth, class C, class T>
__device__ inline void load_some(C (&values)[kWidth], const T* from, int64_t first, int64_t cols) {
#pragma unroll
  for (int i = 0; i < kWidth; ++i)
    values[i] = first + i < cols ? static_cast<C>(from[first + i]) : C(0.0f);
}

}  // namespace adagate::cuda
