// A 64 x 64 tile of a matrix product on CUDA cores, in f32 or f64, of operands of any types. 256
// threads hold 4 x 4 sums each. Slices of 16 of the depth go through shared memory, those of the
// next step are read from global memory during the products of this one.
#pragma once

#include "core/ops/cuda/any_element.h"
#include "core/ops/cuda/elements.h"
#include "core/ops/matmul.h"

namespace adagate::cuda {

// C: what is computed in. A, B, D: element types of a, b and c, or void: known at run time.
template <class C, class A, class B, class D>
class SimtTile {
 public:
  static constexpr int kRows = 64, kCols = 64, kThreads = 256;
  static constexpr size_t kSharedBytes = 2 * 16 * (64 + 4) * sizeof(C);

  // The tile of p.c at (row, col), by a whole block. `shared`: kSharedBytes.
  __device__ static void run(const MatmulArgs& p, int64_t row, int64_t col, unsigned char* shared) {
    C* a = reinterpret_cast<C*>(shared);  // [kDepth, kRows]
    C* b = a + kDepth * kStride;          // [kDepth, kCols]
    C next_a[kLoads], next_b[kLoads], sum[kSide][kSide] = {};
    if (p.k > 0) fetch(p, row, col, 0, next_a, next_b);
    for (int64_t k = 0; k < p.k; k += kDepth) {
      __syncthreads();
      put(next_a, p.trans_a, a);
      put(next_b, !p.trans_b, b);
      __syncthreads();
      if (k + kDepth < p.k) fetch(p, row, col, k + kDepth, next_a, next_b);
      multiply(a, b, sum);
    }
    write(p, row + row_of_thread(), col + col_of_thread(), sum);
  }

 private:
  static constexpr int kDepth = 16, kSide = 4;
  static constexpr int kStride = kRows + 4;  // keeps the threads that write apart in the banks
  static constexpr int kLoads = kDepth * kRows / kThreads;

  __device__ static int row_of_thread() { return static_cast<int>(threadIdx.x) / 16 * kSide; }
  __device__ static int col_of_thread() { return static_cast<int>(threadIdx.x) % 16 * kSide; }

  // What load i of this thread is of a slice: `depth` of the product's depth, `side` of its rows or
  // columns. Neighbours in memory are neighbouring threads'.
  struct Place {
    int depth, side;
    __device__ Place(int i, bool side_is_contiguous) {
      const int at = static_cast<int>(threadIdx.x) + i * kThreads;
      depth = side_is_contiguous ? at / kRows : at % kDepth;
      side = side_is_contiguous ? at % kRows : at / kDepth;
    }
  };

  __device__ static void fetch(const MatmulArgs& p, int64_t row, int64_t col, int64_t k,
                               C (&next_a)[kLoads], C (&next_b)[kLoads]) {
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const Place in_a(i, p.trans_a), in_b(i, !p.trans_b);
      const int64_t m = row + in_a.side, ka = k + in_a.depth;
      const int64_t n = col + in_b.side, kb = k + in_b.depth;
      const int64_t at_a = p.trans_a ? ka * p.lda + m : m * p.lda + ka;
      const int64_t at_b = p.trans_b ? n * p.ldb + kb : kb * p.ldb + n;
      next_a[i] = m < p.m && ka < p.k ? read_element<C, A>(p.a, p.a_type, at_a) : C(0);
      next_b[i] = n < p.n && kb < p.k ? read_element<C, B>(p.b, p.b_type, at_b) : C(0);
    }
  }

  __device__ static void put(const C (&next)[kLoads], bool side_is_contiguous, C* slice) {
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const Place place(i, side_is_contiguous);
      slice[place.depth * kStride + place.side] = next[i];
    }
  }

  __device__ static void multiply(const C* a, const C* b, C (&sum)[kSide][kSide]) {
    a += row_of_thread();
    b += col_of_thread();
#pragma unroll
    for (int k = 0; k < kDepth; ++k) {
      C left[kSide], right[kSide];
      load<kSide>(left, a + k * kStride);
      load<kSide>(right, b + k * kStride);
#pragma unroll
      for (int i = 0; i < kSide; ++i) {
#pragma unroll
        for (int j = 0; j < kSide; ++j) sum[i][j] += left[i] * right[j];
      }
    }
  }

  __device__ static void write(const MatmulArgs& p, int64_t row, int64_t col,
                               const C (&sum)[kSide][kSide]) {
#pragma unroll
    for (int j = 0; j < kSide; ++j) {
      const int64_t n = col + j;
      if (n >= p.n) return;
      const C bias = p.bias ? read_element<C>(p.bias, p.bias_type, n) : C(0);
#pragma unroll
      for (int i = 0; i < kSide; ++i) {
        const int64_t at = (row + i) * p.ldc + n;
        if (row + i >= p.m) break;
        const C before = p.accumulate ? read_element<C, D>(p.c, p.c_type, at) : C(0);
        write_element<D>(p.c, p.c_type, at, before + (sum[i][j] + bias));
      }
    }
  }
};

}  // namespace adagate::cuda
