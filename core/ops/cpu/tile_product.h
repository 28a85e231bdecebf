// Products of small matrices that sit in the caches, and the forms their operands take. An operand
// element is one number of the type computed in, or, on machines with bf16 dot products, a pair of
// bf16 numbers that follow each other along the depth: twice the rate, f32 sums.
#pragma once

#include <array>

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
  static void by_row(int64_t, int64_t, const C*, int64_t, C*, int64_t) {}
  static void by_column(int64_t, int64_t, const C*, int64_t, C*, int64_t) {}
};

template <class C>
inline Vec<C> multiply_add(C left, Vec<C> right, Vec<C> sum) {
  return sum + left * right;
}

#if ADAGATE_BF16_PRODUCTS
// Operands as pairs of bf16. `to` may be `from`: an element is read before its place is written.
struct Bf16Operands {
  using Element = uint32_t;
  static constexpr int kDepth = 2;

  // Pairs along the rows: to [rows, cols / 2]; cols: a multiple of 32.
  static void by_row(int64_t rows, int64_t cols, const float* from, int64_t from_stride,
                     uint32_t* to, int64_t to_stride) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; c += 32) {
        const float* x = from + r * from_stride + c;
        store(to + r * to_stride + c / 2, rounded(load(x), load(x + 16)));
      }
    }
  }
  // Pairs along the columns: to [rows / 2, cols]; cols: a multiple of 16.
  static void by_column(int64_t rows, int64_t cols, const float* from, int64_t from_stride,
                        uint32_t* to, int64_t to_stride) {
    alignas(64) static constexpr auto kInterleave = [] {
      std::array<uint16_t, 32> index{};
      for (uint16_t i = 0; i < 32; ++i) index[i] = static_cast<uint16_t>(i / 2 + i % 2 * 16);
      return index;
    }();
    const __m512i interleave = _mm512_load_si512(kInterleave.data());
    for (int64_t r = 0; r < rows; r += 2) {
      for (int64_t c = 0; c < cols; c += 16) {
        const float* x = from + r * from_stride + c;
        const auto both = std::bit_cast<__m512i>(rounded(load(x), load(x + from_stride)));
        store(to + r / 2 * to_stride + c,
              std::bit_cast<Vec<uint32_t>>(_mm512_permutexvar_epi16(interleave, both)));
      }
    }
  }

 private:
  // 16 + 16 numbers to the nearest bf16.
  static Vec<uint32_t> rounded(Vec<float> low, Vec<float> high) {
    return std::bit_cast<Vec<uint32_t>>(
        _mm512_cvtne2ps_pbh(std::bit_cast<__m512>(high), std::bit_cast<__m512>(low)));
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

// kMicroRows x (kWide vectors) of tile_product, held in registers.
template <Left kLeft, Write kWrite, int kWide, class E, class C>
inline void micro_product(int64_t depth, const E* a, int64_t lda, const E* b, int64_t ldb, C* c,
                          int64_t ldc) {
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
      micro_product<kLeft, kWrite, 2>(depth, a + (kLeft == Left::row_major ? i * lda : i), lda,
                                      b + j, ldb, c + i * ldc + j, ldc);
  for (; j < cols; j += kLanes<C>)
    for (int64_t i = 0; i < rows; i += kMicroRows)
      micro_product<kLeft, kWrite, 1>(depth, a + (kLeft == Left::row_major ? i * lda : i), lda,
                                      b + j, ldb, c + i * ldc + j, ldc);
}

}  // namespace adagate
