// 16 x 16 pieces of matrices in the registers of a warp, for the tensor cores. Which lane holds
// which element is nobody's business: what needs to know goes through shared memory. Pieces in
// memory begin on multiples of 32 bytes, their rows on multiples of 16.
#pragma once

#include <cuda_bf16.h>

#include "core/base/bfloat16.h"
#include "core/device/cuda/kernel.h"

#ifndef ADAGATE_CUDA_EMULATOR  // whose header has them
#include <mma.h>
#endif

namespace adagate::cuda {

namespace wmma = nvcuda::wmma;

constexpr int kPiece = 16;

using SumPiece = wmma::fragment<wmma::accumulator, kPiece, kPiece, kPiece, float>;
template <bool kColumnMajor>
using LeftPiece =
    wmma::fragment<wmma::matrix_a, kPiece, kPiece, kPiece, __nv_bfloat16,
                   std::conditional_t<kColumnMajor, wmma::col_major, wmma::row_major>>;
template <bool kColumnMajor>
using RightPiece =
    wmma::fragment<wmma::matrix_b, kPiece, kPiece, kPiece, __nv_bfloat16,
                   std::conditional_t<kColumnMajor, wmma::col_major, wmma::row_major>>;

}  // namespace adagate::cuda
