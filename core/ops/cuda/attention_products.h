// The products of attention's tiles, by a warp: on tensor cores for bf16, on CUDA cores for f32 and
// f64. Tiles stand in shared memory; sums over many tiles stay in registers.
//
// Both have: Operand, what tiles hold; kRows, a warp's rows; kOther, the other side's rows in a
// tile (keys for queries, queries for keys); kDim, the columns, zeros past the head's dimensions.
//   scores(left, right, to): to [kRows, kOther] = left [kRows, kDim] right^T [kDim, kOther]
//   put_factor(factors, factor): the lanes' factor of the row that they share -> [kRows, kFactors]
//   Sums: [kRows, kDim], from 0.  add(weights, right): += weights [kRows, kOther] right
//                                 rescale(factors): times each row's factor; store(to)
// kStride, kScoreStride and kWeightStride are from row to row of tiles, of scores and of weights;
// weights take the place of scores.
#pragma once

#include "core/ops/cuda/elements.h"
#include "core/ops/cuda/fragments.h"

namespace adagate::cuda {

template <int kColumns>
struct TensorProducts {
  using C = float;
  using Operand = __nv_bfloat16;
  static constexpr int kDim = kColumns, kRows = 16, kOther = 64;
  static constexpr int kStride = kDim + 8;
  static constexpr int kScoreStride = kOther + 4, kWeightStride = 2 * kScoreStride;
  static constexpr int kSumStride = kDim + 4;
  static constexpr int kFactors = kPiece;

  __device__ static void put_factor(C* factors, C factor) {
    const C four[4] = {factor, factor, factor, factor};
    C* to = factors + static_cast<int>(threadIdx.x) % kWarp * (kRows * kFactors / kWarp);
    cuda::store<4>(to, four);
    cuda::store<4>(to + 4, four);
  }

  __device__ static void scores(const Operand* left, const Operand* right, C* to) {
    SumPiece sums[kOther / kPiece];
#pragma unroll
    for (auto& sum : sums) wmma::fill_fragment(sum, 0.0f);
#pragma unroll 4
    for (int d = 0; d < kDim; d += kPiece) {
      LeftPiece<false> a;
      wmma::load_matrix_sync(a, left + d, kStride);
#pragma unroll
      for (int j = 0; j < kOther / kPiece; ++j) {
        RightPiece<true> b;
        wmma::load_matrix_sync(b, right + j * kPiece * kStride + d, kStride);
        wmma::mma_sync(sums[j], a, b, sums[j]);
      }
    }
#pragma unroll
    for (int j = 0; j < kOther / kPiece; ++j)
      wmma::store_matrix_sync(to + j * kPiece, sums[j], kScoreStride, wmma::mem_row_major);
  }

  class Sums {
   public:
    __device__ Sums() {
#pragma unroll
      for (auto& sum : sums_) wmma::fill_fragment(sum, 0.0f);
    }
    __device__ void add(const Operand* weights, const Operand* right) {
#pragma unroll
      for (int n = 0; n < kOther; n += kPiece) {
        LeftPiece<false> a;
        wmma::load_matrix_sync(a, weights + n, kWeightStride);
#pragma unroll
        for (int j = 0; j < kDim / kPiece; ++j) {
          RightPiece<false> b;
          wmma::load_matrix_sync(b, right + n * kStride + j * kPiece, kStride);
          wmma::mma_sync(sums_[j], a, b, sums_[j]);
        }
      }
    }
    __device__ void rescale(const C* factors) {
      // A piece whose rows are the factors tells each element its own.
      SumPiece of_row;
      wmma::load_matrix_sync(of_row, factors, kFactors, wmma::mem_row_major);
#pragma unroll
      for (auto& sum : sums_) {
#pragma unroll
        for (int i = 0; i < static_cast<int>(sum.num_elements); ++i) sum.x[i] *= of_row.x[i];
      }
    }
    __device__ void store(C* to) const {
#pragma unroll
      for (int j = 0; j < kDim / kPiece; ++j)
        wmma::store_matrix_sync(to + j * kPiece, sums_[j], kSumStride, wmma::mem_row_major);
    }

   private:
    SumPiece sums_[kDim / kPiece];
  };
};

// A lane has four rows, and every sixteenth column.
template <class T, int kColumns>
struct CoreProducts {
  using C = T;
  using Operand = T;
  static constexpr int kDim = kColumns, kRows = 8, kOther = sizeof(T) == 8 ? 16 : 32;
  static constexpr int kStride = kDim + kPack<T>;
  static constexpr int kScoreStride = kOther + 4, kWeightStride = kScoreStride;
  static constexpr int kSumStride = kDim + kPack<T>;
  static constexpr int kFactors = 1;

  __device__ static void put_factor(C* factors, C factor) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp, share = kWarp / kRows;
    if (lane % share == 0) factors[lane / share] = factor;
  }
  __device__ static int first_row() { return static_cast<int>(threadIdx.x) % kWarp / 16 * 4; }
  __device__ static int column() { return static_cast<int>(threadIdx.x) % 16; }

  __device__ static void scores(const Operand* left, const Operand* right, C* to) {
    constexpr int kWidth = kPack<T>, kEach = kOther / 16;
    C sums[4][kEach] = {};
    for (int d = 0; d < kDim; d += kWidth) {
      C a[4][kWidth], b[kEach][kWidth];
#pragma unroll
      for (int i = 0; i < 4; ++i) load<kWidth>(a[i], left + (first_row() + i) * kStride + d);
#pragma unroll
      for (int j = 0; j < kEach; ++j) load<kWidth>(b[j], right + (column() + 16 * j) * kStride + d);
#pragma unroll
      for (int w = 0; w < kWidth; ++w) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
          for (int j = 0; j < kEach; ++j) sums[i][j] += a[i][w] * b[j][w];
        }
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < kEach; ++j)
        to[(first_row() + i) * kScoreStride + column() + 16 * j] = sums[i][j];
    }
  }

  class Sums {
   public:
    __device__ Sums() {}
    __device__ void add(const Operand* weights, const Operand* right) {
#pragma unroll 4
      for (int n = 0; n < kOther; ++n) {
        C a[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) a[i] = weights[(first_row() + i) * kWeightStride + n];
#pragma unroll
        for (int j = 0; j < kEach; ++j) {
          const C b = right[n * kStride + column() + 16 * j];
#pragma unroll
          for (int i = 0; i < 4; ++i) sums_[i][j] += a[i] * b;
        }
      }
    }
    __device__ void rescale(const C* factors) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < kEach; ++j) sums_[i][j] *= factors[first_row() + i];
      }
    }
    __device__ void store(C* to) const {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < kEach; ++j)
          to[(first_row() + i) * kSumStride + column() + 16 * j] = sums_[i][j];
      }
    }

   private:
    static constexpr int kEach = kDim / 16;
    C sums_[4][kEach] = {};
  };
};

// What a tensor of T with heads of up to kDim dimensions is multiplied by.
template <class T, int kDim>
using ProductsOf =
    std::conditional_t<std::is_same_v<T, bfloat16>, TensorProducts<kDim>, CoreProducts<T, kDim>>;

}  // namespace adagate::cuda
