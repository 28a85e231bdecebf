// Products of small matrices that sit in the caches, and the forms their operands take. An operand
// element is one number of the type computed in, or, on machines with bf16 dot products, a pair of
// bf16 numbers that follow each other along the depth: twice the rate, f32 sums.
#pragma once

#include "core/base/bfloat16.h"
#include "core/ops/cpu/vector.h"

#if defined(__AVX512BF16__) && defined(__AVX512BW__)
#define ADAGATE_BF16_PRODUCTS 1
#include <immintrin.h>
#endif

namespace adagate {

// Rows of the accumulators of one micro_product: 8 x 2 vectors of 32 registers, 4 x 2 of 16.
#if defined(__AVX512F__)
constexpr int kMicroRows = 8;
#else
constexpr int kMicroRows = 4;
#endif

// Operands in the type computed in: every form is the matrix itself.
template <class C>
struct ExactOperands {
  using Element = C;
  static constexpr int kDepth = 1;  // numbers along the depth in one element
};

template <class C>
inline Vec<C> multiply_add(C left, Vec<C> right, Vec<C> sum) {
  return sum + left * right;
}

#if ADAGATE_BF16_PRODUCTS
// Operands as pairs of bf16.
struct Bf16Operands {
  using Element = uint32_t;
  static constexpr int kDepth = 2;

  // Pairs along a row: the numbers of `low`, then those of `high`.
  static Vec<uint32_t> along_row(Vec<float> low, Vec<float> high) {
    return std::bit_cast<Vec<uint32_t>>(
        _mm512_cvtne2ps_pbh(std::bit_cast<__m512>(high), std::bit_cast<__m512>(low)));
  }
  // Pairs along the columns: of a row and the next one.
  static Vec<uint32_t> along_column(Vec<float> row, Vec<float> next) {
    const auto both = std::bit_cast<__m512i>(along_row(row, next));
    return std::bit_cast<Vec<uint32_t>>(_mm512_permutexvar_epi16(interleaved(0, 16), both));
  }
  // Pairs along the columns of 32 columns of bf16 that stand anywhere; to: [32].
  static void along_column(const bfloat16* row, const bfloat16* next, uint32_t* to) {
    const __m512i a = _mm512_loadu_si512(row), b = _mm512_loadu_si512(next);
    _mm512_store_si512(to, _mm512_permutex2var_epi16(a, interleaved(0, 32), b));
    _mm512_store_si512(to + 16, _mm512_permutex2var_epi16(a, interleaved(16, 48), b));
  }

 private:
  // first, second, first + 1, second + 1, ...
  static __m512i interleaved(uint16_t first, uint16_t second) {
    Vec<uint16_t> index;
    for (uint16_t i = 0; i < 32; ++i)
      index[i] = static_cast<uint16_t>(i / 2 + (i % 2 ? second : first));
    return std::bit_cast<__m512i>(index);
  }
};

inline Vec<float> multiply_add(uint32_t left, Vec<uint32_t> right, Vec<float> sum) {
  return std::bit_cast<Vec<float>>(
      _mm512_dpbf16_ps(std::bit_cast<__m512>(sum), std::bit_cast<__m512bh>(right),
                       std::bit_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(left)))));
}
#endif

enum class Left { row_major, column_major };
enum class Write { overwrite, accumulate };

// kMicroRows x (kWide vectors) of tile_product, held in registers. The last vector takes `more`
// steps of depth beyond those of all: causal attention, where later queries see more keys.
template <Left kLeft, Write kWrite, int kWide, class E, class C>
inline void micro_product(int64_t depth, int64_t more, const E* a, int64_t lda, const E* b,
                          int64_t ldb, C* c, int64_t ldc) {
  constexpr int L = kLanes<C>;
  Vec<C> sum[kMicroRows][kWide];
#pragma GCC unroll 8
  for (int i = 0; i < kMicroRows; ++i)
#pragma GCC unroll 2
    for (int j = 0; j < kWide; ++j)
      sum[i][j] = kWrite == Write::accumulate ? load(c + i * ldc + j * L) : Vec<C>{};
  for (int64_t k = 0; k < depth; ++k) {
    Vec<E> right[kWide];
#pragma GCC unroll 2
    for (int j = 0; j < kWide; ++j) right[j] = load(b + k * ldb + j * L);
#pragma GCC unroll 8
    for (int i = 0; i < kMicroRows; ++i) {
      const E left = kLeft == Left::row_major ? a[i * lda + k] : a[k * lda + i];
#pragma GCC unroll 2
      for (int j = 0; j < kWide; ++j) sum[i][j] = multiply_add(left, right[j], sum[i][j]);
    }
  }
  for (int64_t k = depth; k < depth + more; ++k) {
    const Vec<E> right = load(b + k * ldb + (kWide - 1) * L);
#pragma GCC unroll 8
    for (int i = 0; i < kMicroRows; ++i) {
      const E left = kLeft == Left::row_major ? a[i * lda + k] : a[k * lda + i];
      sum[i][kWide - 1] = multiply_add(left, right, sum[i][kWide - 1]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kMicroRows; ++i)
#pragma GCC unroll 2
    for (int j = 0; j < kWide; ++j) store(c + i * ldc + j * L, sum[i][j]);
}

// c [rows, cols] (+)= a b. a is [rows, depth], or [depth, rows] when column-major; b is [depth,
// cols]; depth counts elements. rows: multiple of kMicroRows, cols: of kLanes.
template <Left kLeft, Write kWrite, class E, class C>
inline void tile_product(int64_t rows, int64_t cols, int64_t depth, const E* a, int64_t lda,
                         const E* b, int64_t ldb, C* c, int64_t ldc) {
  constexpr int64_t kWide = 2 * kLanes<C>;
  int64_t j = 0;
  for (; j + kWide <= cols; j += kWide)
    for (int64_t i = 0; i < rows; i += kMicroRows)
      micro_product<kLeft, kWrite, 2>(depth, 0, a + (kLeft == Left::row_major ? i * lda : i), lda,
                                      b + j, ldb, c + i * ldc + j, ldc);
  for (; j < cols; j += kLanes<C>)
    for (int64_t i = 0; i < rows; i += kMicroRows)
      micro_product<kLeft, kWrite, 1>(depth, 0, a + (kLeft == Left::row_major ? i * lda : i), lda,
                                      b + j, ldb, c + i * ldc + j, ldc);
}

// A unit of products, as attention asks for them: VectorUnit runs on vectors, TileUnit
// (matrix_tiles.h) on matrix tiles. multiply() is micro_product() for kRows rows.
struct VectorUnit {
  struct Session {};  // to be held while multiply() is called
  static constexpr int kRows = kMicroRows;
  static constexpr int64_t kDepthStep = 1;   // depths are multiples of it
  static constexpr bool kLeftByRow = false;  // whether left operands must stand by row

  template <Left kLeft, Write kWrite, int kWide, class E, class C>
  static void multiply(int64_t depth, int64_t more, const E* a, int64_t lda, const E* b,
                       int64_t ldb, C* c, int64_t ldc) {
    micro_product<kLeft, kWrite, kWide>(depth, more, a, lda, b, ldb, c, ldc);
  }
};

}  // namespace adagate
