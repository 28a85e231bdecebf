// Full-width vectors, written with the compilers' vector extension, so that one source serves
// AVX-512, AVX2 and narrower machines.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "core/base/bfloat16.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace adagate {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif
#if defined(__AVX512F__)
// For masked intrinsics: g++ 12 warns of its own definitions of the plain ones.
constexpr __mmask16 kAllLanes = 0xffff;
#endif

template <class C>
struct VectorOf {
  typedef C type __attribute__((vector_size(kVectorBytes), may_alias));
};
template <class C>
using Vec = typename VectorOf<C>::type;
template <class C>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(C));

inline int64_t round_up(int64_t n, int64_t to) {
  return (n + to - 1) / to * to;
}

// Memory must be aligned to kVectorBytes.
template <class C>
inline Vec<C> load(const C* from) {
  return *reinterpret_cast<const Vec<C>*>(from);
}
template <class C>
inline void store(C* to, Vec<C> value) {
  *reinterpret_cast<Vec<C>*>(to) = value;
}

// kLanes numbers that stand anywhere, bf16 as f32.
template <class C>
requires std::is_arithmetic_v<C>
inline Vec<C> load_any(const C* from) {
  Vec<C> x;
  std::memcpy(&x, from, sizeof(x));
  return x;
}
inline Vec<float> load_any(const bfloat16* from) {
#if defined(__AVX512F__)  // of the conversion below g++ 12 makes two halves
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return std::bit_cast<Vec<float>>(
      _mm512_maskz_slli_epi32(kAllLanes, _mm512_maskz_cvtepu16_epi32(kAllLanes, bits), 16));
#else
  typedef uint16_t Half __attribute__((vector_size(kVectorBytes / 2)));
  Half bits;
  std::memcpy(&bits, from, sizeof(bits));
  return std::bit_cast<Vec<float>>(__builtin_convertvector(bits, Vec<uint32_t>) << 16);
#endif
}
template <class C>
requires std::is_arithmetic_v<C>
inline void store_any(C* to, Vec<C> value) {
  std::memcpy(to, &value, sizeof(value));
}
// Rounds to nearest even, as bfloat16(float) does.
inline void store_any(bfloat16* to, Vec<float> value) {
#if defined(__AVX512BF16__)
  const __m256bh bits = _mm512_cvtneps_pbh(std::bit_cast<__m512>(value));
  std::memcpy(&to->bits, &bits, sizeof(bits));
#else
  for (int i = 0; i < kLanes<float>; ++i) to[i] = bfloat16(value[i]);
#endif
}
template <class C>
inline Vec<C> broadcast(C value) {
  return Vec<C>{} + value;
}
// Of two numbers that don't compare, the second one.
template <class C>
inline Vec<C> max(Vec<C> a, Vec<C> b) {
  return a > b ? a : b;
}
template <class C>
inline Vec<C> min(Vec<C> a, Vec<C> b) {
  return a < b ? a : b;
}
#if defined(__AVX512F__)  // with a constant g++ 12 compares and blends
template <>
inline Vec<float> max<float>(Vec<float> a, Vec<float> b) {
  return std::bit_cast<Vec<float>>(
      _mm512_maskz_max_ps(kAllLanes, std::bit_cast<__m512>(a), std::bit_cast<__m512>(b)));
}
template <>
inline Vec<float> min<float>(Vec<float> a, Vec<float> b) {
  return std::bit_cast<Vec<float>>(
      _mm512_maskz_min_ps(kAllLanes, std::bit_cast<__m512>(a), std::bit_cast<__m512>(b)));
}
#endif
// The sum of all lanes, by halves.
template <class C, int kHalf = kLanes<C> / 2>
inline C sum_lanes(Vec<C> x) {
  if constexpr (kHalf == 0) {
    return x[0];
  } else {
    Vec<std::conditional_t<sizeof(C) == 4, int32_t, int64_t>> other;
    for (int i = 0; i < kLanes<C>; ++i) other[i] = i ^ kHalf;
    return sum_lanes<C, kHalf / 2>(x + __builtin_shuffle(x, other));
  }
}

// 2^x for x <= 126, relative error below 2e-7 in f32; below -126 a denormal number or 0.
inline Vec<float> exp2(Vec<float> x) {
#if defined(__AVX512F__)
  const __m512 n = _mm512_maskz_roundscale_ps(kAllLanes, std::bit_cast<__m512>(x), 8);
  const auto whole = std::bit_cast<Vec<float>>(n);
#else
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const Vec<float> whole = (x + kRound) - kRound;
#endif
  const Vec<float> f = x - whole;  // [-0.5, 0.5]
  // Polynomial through the Chebyshev nodes of that interval, evaluated by pairs: a short chain.
  const Vec<float> f2 = f * f;
  const Vec<float> low = f * 0.69314721f + 1.0f, middle = f * 0.055503272f + 0.24022651f;
  const Vec<float> high = f2 * 0.00015461445f + (f * 0.0013400428f + 0.0096180567f);
  const Vec<float> p = low + f2 * (middle + f2 * high);
#if defined(__AVX512F__)
  return std::bit_cast<Vec<float>>(_mm512_maskz_scalef_ps(kAllLanes, std::bit_cast<__m512>(p), n));
#else
  using Ints = Vec<int32_t>;
  const Ints exponent = __builtin_convertvector(whole, Ints) << 23;
  const auto y = std::bit_cast<Vec<float>>(std::bit_cast<Ints>(p) + exponent);
  return x < -126.0f ? Vec<float>{} : y;
#endif
}
inline Vec<double> exp2(Vec<double> x) {
  Vec<double> y;
  for (int i = 0; i < kLanes<double>; ++i) y[i] = std::exp2(x[i]);
  return y;
}

// Transposes a square block of kLanes x kLanes, by log2(kLanes) rounds of perfect shuffles.
template <class C>
inline void transpose_block(const C* from, int64_t from_stride, C* to, int64_t to_stride) {
  constexpr int n = kLanes<C>;
  using Index = Vec<std::conditional_t<sizeof(C) == 4, int32_t, int64_t>>;
  Index low, high;
  for (int i = 0; i < n; ++i) {
    low[i] = i / 2 + (i % 2) * n;
    high[i] = n / 2 + i / 2 + (i % 2) * n;
  }
  Vec<C> rows[n], next[n];
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i) rows[i] = load(from + i * from_stride);
#pragma GCC unroll 4
  for (int round = 1; round < n; round *= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < n / 2; ++i) {
      next[2 * i] = __builtin_shuffle(rows[i], rows[i + n / 2], low);
      next[2 * i + 1] = __builtin_shuffle(rows[i], rows[i + n / 2], high);
    }
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) rows[i] = next[i];
  }
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i) store(to + i * to_stride, rows[i]);
}

// to [cols, rows] = from [rows, cols] transposed; both sizes multiples of kLanes.
template <class C>
inline void transpose(int64_t rows, int64_t cols, const C* from, int64_t from_stride, C* to,
                      int64_t to_stride) {
  for (int64_t i = 0; i < rows; i += kLanes<C>)
    for (int64_t j = 0; j < cols; j += kLanes<C>)
      transpose_block(from + i * from_stride + j, from_stride, to + j * to_stride + i, to_stride);
}

}  // namespace adagate
