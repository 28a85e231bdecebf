// exp, tanh and erf that compilers vectorise: branch-free, no tables, no library calls. In f32 the
// relative error is below 1e-6 (tests/core/test_vector_math.cpp); the f64 overloads are those of
// the standard library. The polynomials are minimax fits, made for these intervals.
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

template <class T>
ADAGATE_HD inline T sigmoid(T x) {
  return T(1) / (T(1) + exp(-x));
}

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

ADAGATE_HD inline float erf(float x) {
  float z = x * x;
  float p = 8.397290663e-5f;
  p = p * z - 8.149688260e-4f;
  p = p * z + 5.201705873e-3f;
  p = p * z - 2.685969823e-2f;
  p = p * z + 1.128370155e-1f;
  p = p * z - 3.761263418e-1f;
  p = p * z + 1.128379167e+0f;
  float small = x * p;
  // 1 - erf(t) = exp(-q(t)) on [0.9, 4]; beyond, erf is 1 in f32.
  float a = std::fabs(x);
  float t = a > 4.0f ? 4.0f : a;
  float q = 6.628673085e-7f;
  q = q * t + 1.232925885e-5f;
  q = q * t - 3.847813688e-4f;
  q = q * t + 4.013383319e-3f;
  q = q * t - 2.481276939e-2f;
  q = q * t + 1.079056741e-1f;
  q = q * t + 6.336273370e-1f;
  q = q * t + 1.129397055e+0f;
  q = q * t - 1.533806543e-4f;
  float large = 1.0f - exp(-q);
  large = x < 0 ? -large : large;
  return z < 0.85f ? small : large;
}
ADAGATE_HD inline double erf(double x) {
  return std::erf(x);
}

}  // namespace adagate::vector_math
