// A 128 x 128 tile of a product of bf16 matrices on tensor cores, sums in f32, result in f32 or
// bf16. Eight warps hold 64 x 32 sums each. Operands stand in shared memory as they stand in global
// memory, so that 16 bytes move at once whatever is transposed; two buffers for slices of 32 of the
// depth: the next slice is read into registers during the products of this one, one barrier a step.
// Rows that don't begin on 16 bytes, and edges, are read element by element.
#pragma once

#include "core/ops/cuda/any_element.h"
#include "core/ops/cuda/elements.h"
#include "core/ops/cuda/fragments.h"
#include "core/ops/matmul.h"

namespace adagate::cuda {

// Eight elements of row r of a matrix [rows, cols] from column c on; zeros outside of it.
// `aligned`: rows begin on multiples of 16 bytes.
struct Bf16Matrix {
  const uint16_t* data;
  int64_t ld, rows, cols;
  bool aligned;

  __device__ Bf16Matrix(const void* from, int64_t stride, int64_t r, int64_t c)
      : data(static_cast<const uint16_t*>(from)),
        ld(stride),
        rows(r),
        cols(c),
        aligned(stride % 8 == 0 && reinterpret_cast<uintptr_t>(from) % 16 == 0) {}

  __device__ uint4 eight(int64_t r, int64_t c) const {
    if (r >= rows || c >= cols) return make_uint4(0, 0, 0, 0);
    const uint16_t* from = data + r * ld + c;
    if (aligned && c + 8 <= cols) return *reinterpret_cast<const uint4*>(from);
    uint32_t words[4] = {};
#pragma unroll
    for (int i = 0; i < 8; ++i)
      if (c + i < cols) words[i / 2] |= static_cast<uint32_t>(from[i]) << (i % 2 * 16);
    return make_uint4(words[0], words[1], words[2], words[3]);
  }
};

template <bool kTransA, bool kTransB>
class TensorTile {
 public:
  static constexpr int kRows = 128, kCols = 128, kThreads = 256;

 private:
  static constexpr int kDepth = 32;
  // A slice of an operand: rows as in memory, 16 bytes longer than they need be, which keeps the
  // pieces' rows apart in the banks.
  template <bool kDepthByRow>
  struct Slice {
    static constexpr int kSliceRows = kDepthByRow ? kDepth : kRows;
    static constexpr int kSliceCols = kDepthByRow ? kRows : kDepth;
    static constexpr int kStride = kSliceCols + 8;
    static constexpr int kElements = kSliceRows * kStride;
    static constexpr int kLoads = kSliceRows * kSliceCols / 8 / kThreads;
    __device__ static int row(int i) { return at(i) / (kSliceCols / 8); }
    __device__ static int col(int i) { return at(i) % (kSliceCols / 8) * 8; }
    __device__ static int at(int i) { return static_cast<int>(threadIdx.x) + i * kThreads; }
  };
  using SliceA = Slice<kTransA>;
  using SliceB = Slice<!kTransB>;
  static constexpr int kWarpRows = 64, kWarpCols = 32;
  static constexpr int kHigh = kWarpRows / kPiece, kWide = kWarpCols / kPiece;
  static constexpr int kOutStride = kWarpCols + 4;
  static constexpr size_t kBufferBytes = (SliceA::kElements + SliceB::kElements) * 2;
  static_assert(kThreads / kWarp * kPiece * kOutStride * sizeof(float) <= 2 * kBufferBytes);

 public:
  static constexpr size_t kSharedBytes = 2 * kBufferBytes;

  // The tile of p.c at (row, col), by a whole block. `shared`: kSharedBytes.
  __device__ static void run(const MatmulArgs& p, int64_t row, int64_t col, unsigned char* shared) {
    const Bf16Matrix a(p.a, p.lda, kTransA ? p.k : p.m, kTransA ? p.m : p.k);
    const Bf16Matrix b(p.b, p.ldb, kTransB ? p.n : p.k, kTransB ? p.k : p.n);
    SumPiece sum[kHigh][kWide];
    for (auto& pieces : sum) {
      for (auto& piece : pieces) wmma::fill_fragment(piece, 0.0f);
    }
    uint4 next_a[SliceA::kLoads], next_b[SliceB::kLoads];
    __syncthreads();  // the tile before has left its place
    if (p.k > 0) {
      fetch<SliceA>(a, kTransA ? 0 : row, kTransA ? row : 0, next_a);
      fetch<SliceB>(b, kTransB ? col : 0, kTransB ? 0 : col, next_b);
      put<SliceA>(next_a, part_a(shared, 0));
      put<SliceB>(next_b, part_b(shared, 0));
    }
    __syncthreads();
    int buffer = 0;
    for (int64_t k = 0; k < p.k; k += kDepth, buffer ^= 1) {
      const int64_t next = k + kDepth;
      if (next < p.k) {
        fetch<SliceA>(a, kTransA ? next : row, kTransA ? row : next, next_a);
        fetch<SliceB>(b, kTransB ? col : next, kTransB ? next : col, next_b);
      }
      multiply(part_a(shared, buffer), part_b(shared, buffer), sum);
      if (next < p.k) {
        put<SliceA>(next_a, part_a(shared, buffer ^ 1));
        put<SliceB>(next_b, part_b(shared, buffer ^ 1));
      }
      __syncthreads();
    }
    write(p, row, col, sum, shared);
  }

 private:
  __device__ static __nv_bfloat16* part_a(unsigned char* shared, int buffer) {
    return reinterpret_cast<__nv_bfloat16*>(shared + static_cast<size_t>(buffer) * kBufferBytes);
  }
  __device__ static __nv_bfloat16* part_b(unsigned char* shared, int buffer) {
    return part_a(shared, buffer) + SliceA::kElements;
  }
  __device__ static int warp() { return static_cast<int>(threadIdx.x) / kWarp; }
  __device__ static int warp_row() { return warp() / (kCols / kWarpCols) * kWarpRows; }
  __device__ static int warp_col() { return warp() % (kCols / kWarpCols) * kWarpCols; }

  template <class S>
  __device__ static void fetch(const Bf16Matrix& x, int64_t row, int64_t col,
                               uint4 (&next)[S::kLoads]) {
#pragma unroll
    for (int i = 0; i < S::kLoads; ++i) next[i] = x.eight(row + S::row(i), col + S::col(i));
  }
  template <class S>
  __device__ static void put(const uint4 (&next)[S::kLoads], __nv_bfloat16* slice) {
#pragma unroll
    for (int i = 0; i < S::kLoads; ++i)
      *reinterpret_cast<uint4*>(slice + S::row(i) * S::kStride + S::col(i)) = next[i];
  }

  __device__ static void multiply(const __nv_bfloat16* a, const __nv_bfloat16* b,
                                  SumPiece (&sum)[kHigh][kWide]) {
#pragma unroll
    for (int k = 0; k < kDepth; k += kPiece) {
      RightPiece<kTransB> right[kWide];
#pragma unroll
      for (int j = 0; j < kWide; ++j) {
        const int n = warp_col() + j * kPiece;
        const int at = kTransB ? n * SliceB::kStride + k : k * SliceB::kStride + n;
        wmma::load_matrix_sync(right[j], b + at, SliceB::kStride);
      }
#pragma unroll
      for (int i = 0; i < kHigh; ++i) {
        const int m = warp_row() + i * kPiece;
        const int at = kTransA ? k * SliceA::kStride + m : m * SliceA::kStride + k;
        LeftPiece<kTransA> left;
        wmma::load_matrix_sync(left, a + at, SliceA::kStride);
#pragma unroll
        for (int j = 0; j < kWide; ++j) wmma::mma_sync(sum[i][j], left, right[j], sum[i][j]);
      }
    }
  }

  // Sixteen rows of the warp at a time go through its own place in shared memory.
  __device__ static void write(const MatmulArgs& p, int64_t row, int64_t col,
                               SumPiece (&sum)[kHigh][kWide], unsigned char* shared) {
    float* out = reinterpret_cast<float*>(shared) + warp() * kPiece * kOutStride;
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const bool aligned =
        p.ldc % 4 == 0 && reinterpret_cast<uintptr_t>(p.c) % (4 * size_of(p.c_type)) == 0;
#pragma unroll
    for (int i = 0; i < kHigh; ++i) {
      __syncwarp();
#pragma unroll
      for (int j = 0; j < kWide; ++j)
        wmma::store_matrix_sync(out + j * kPiece, sum[i][j], kOutStride, wmma::mem_row_major);
      __syncwarp();
      for (int at = lane; at < kPiece * (kWarpCols / 4); at += kWarp) {
        const int r = at / (kWarpCols / 4), c = at % (kWarpCols / 4) * 4;
        float four[4];
        load<4>(four, out + r * kOutStride + c);
        write_four(p, row + warp_row() + i * kPiece + r, col + warp_col() + c, aligned, four);
      }
    }
  }

  __device__ static void write_four(const MatmulArgs& p, int64_t r, int64_t c, bool aligned,
                                    float (&values)[4]) {
    if (r >= p.m || c >= p.n) return;
    if (p.bias) {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (c + i < p.n) values[i] += read_element<float>(p.bias, p.bias_type, c + i);
    }
    const int64_t at = r * p.ldc + c;
    if (!aligned || c + 4 > p.n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (c + i >= p.n) break;
        const float before = p.accumulate ? read_element<float>(p.c, p.c_type, at + i) : 0.0f;
        write_element(p.c, p.c_type, at + i, before + values[i]);
      }
    } else if (p.c_type == DType::f32) {
      add_and_store(p, static_cast<float*>(p.c) + at, values);
    } else {
      add_and_store(p, static_cast<bfloat16*>(p.c) + at, values);
    }
  }
  template <class T>
  __device__ static void add_and_store(const MatmulArgs& p, T* to, float (&values)[4]) {
    if (p.accumulate) {
      float before[4];
      load<4>(before, to);
#pragma unroll
      for (int i = 0; i < 4; ++i) values[i] += before[i];
    }
    store<4>(to, values);
  }
};

}  // namespace adagate::cuda
