// exp, exp2, tanh and the normal distribution that compilers vectorise: branch-free, no tables, no
// library calls. In f32 the relative error is below 1e-6 (tests/core/test_vector_math.cpp); the f64
// overloads are those of the standard library. The polynomials are minimax fits, made for these
// intervals.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "core/base/hd.h"

namespace adagate::vector_math {

// 0 below -87.3 (no denormals), infinity above 88.7; NaN stays NaN.
ADAGATE_HD inline float exp(float x) {
  constexpr float kLog2E = 1.44269504f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  constexpr float kLowest = -87.3f, kHighest = 88.72283f;
  float clamped = x < kLowest ? kLowest : (x > kHighest ? kHighest : x);
  // Adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the low bits.
  constexpr float kRound = 12582912.0f;
  float shifted = clamped * kLog2E + kRound;
  float n = shifted - kRound;
  float r = (clamped - n * kLn2High) - n * kLn2Low;  // |r| <= ln 2 / 2
  float p = 1.383683541e-3f;
  p = p * r + 8.374824056e-3f;
  p = p * r + 4.166822620e-2f;
  p = p * r + 1.666642007e-1f;
  p = p * r + 4.999999208e-1f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  // Two factors, since 2^128 is not a float. Unsigned: a NaN leaves arbitrary bits here.
  uint32_t power = std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(kRound);
  uint32_t half = static_cast<uint32_t>(static_cast<int32_t>(power) >> 1);
  float scale = std::bit_cast<float>((half + 127u) << 23);
  float rest = std::bit_cast<float>((power - half + 127u) << 23);
  float y = p * scale * rest;
  y = x < kLowest ? 0.0f : y;
  return x > kHighest ? INFINITY : y;
}
ADAGATE_HD inline double exp(double x) {
  return std::exp(x);
}

// 0 below -126 (no denormals), infinity from 128; NaN stays NaN.
ADAGATE_HD inline float exp2(float x) {
  float clamped = x < -126.0f ? -126.0f : (x > 128.0f ? 128.0f : x);
  constexpr float kRound = 12582912.0f;  // as above
  float shifted = clamped + kRound;
  float f = clamped - (shifted - kRound);  // |f| <= 0.5
  float p = 0.00015461445f;
  p = p * f + 0.0013400428f;
  p = p * f + 0.0096180567f;
  p = p * f + 0.055503272f;
  p = p * f + 0.24022651f;
  p = p * f + 0.69314721f;
  p = p * f + 1.0f;
  uint32_t power = std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(kRound);
  uint32_t half = static_cast<uint32_t>(static_cast<int32_t>(power) >> 1);
  float scale = std::bit_cast<float>((half + 127u) << 23);
  float rest = std::bit_cast<float>((power - half + 127u) << 23);
  float y = p * scale * rest;
  return x < -126.0f ? 0.0f : y;
}
ADAGATE_HD inline double exp2(double x) {
  return std::exp2(x);
}

// The functions of a T, for templates: one number here, a whole vector in
// core/ops/cpu/vector_functions.h.
template <class T>
struct Functions {
  using Scalar = T;
  ADAGATE_HD static T exp2(T x) { return vector_math::exp2(x); }
  ADAGATE_HD static T normal_cdf(T x);
};

ADAGATE_HD inline float tanh(float x) {
  float z = x * x;
  float p = -5.615603380e-3f;
  p = p * z + 2.055282001e-2f;
  p = p * z - 5.370983771e-2f;
  p = p * z + 1.333099686e-1f;
  p = p * z - 3.333325545e-1f;
  float small = x + x * z * p;
  float large = 1.0f - 2.0f / (exp(2.0f * std::fabs(x)) + 1.0f);
  large = x < 0 ? -large : large;
  return z < 0.4f ? small : large;
}
ADAGATE_HD inline double tanh(double x) {
  return std::tanh(x);
}

// Phi(x) = (1 + erf(x / sqrt(2))) / 2, absolute error below 1.2e-7, relative error below 4e-6 down
// to x = -5. T: float or a vector of them.
template <class T>
ADAGATE_HD inline T normal_cdf_f32(T x) {
  // -log2(Phi(-a)) for a >= 0, fitted up to 6.5; from there on it grows.
  T a = x < 0.0f ? -x : x;
  T q = 1.3520668e-08f * a - 4.6228863e-07f;
  q = q * a + 6.6911334e-06f;
  q = q * a - 5.156891e-05f;
  q = q * a + 1.9488133e-04f;
  q = q * a + 1.7174474e-04f;
  q = q * a - 7.1486416e-03f;
  q = q * a + 5.2570105e-02f;
  q = q * a + 4.5918143e-01f;
  q = q * a + 1.1511086f;
  q = q * a + 0.99999994f;
  T tail = Functions<T>::exp2(-q);
  return x < 0.0f ? tail : 1.0f - tail;
}
ADAGATE_HD inline float normal_cdf(float x) {
  return normal_cdf_f32(x);
}
ADAGATE_HD inline double normal_cdf(double x) {
  return 0.5 * std::erfc(-0.70710678118654752 * x);
}

template <class T>
ADAGATE_HD inline T Functions<T>::normal_cdf(T x) {
  return vector_math::normal_cdf(x);
}

}  // namespace adagate::vector_math
