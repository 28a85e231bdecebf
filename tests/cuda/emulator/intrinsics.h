// Functions that CUDA has and C++ has not. The fast ones are as exact as the others here: tests
// compare by tolerances.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <math.h>

#include "tests/cuda/emulator/faults.h"

inline float __expf(float x) {
  return std::exp(x);
}
inline float __exp10f(float x) {
  return std::pow(10.0f, x);
}
inline float __logf(float x) {
  return std::log(x);
}
inline float __log2f(float x) {
  return std::log2(x);
}
inline float __log10f(float x) {
  return std::log10(x);
}
inline float __sinf(float x) {
  return std::sin(x);
}
inline float __cosf(float x) {
  return std::cos(x);
}
inline float __powf(float x, float y) {
  return std::pow(x, y);
}
inline float __fdividef(float x, float y) {
  return x / y;
}
inline float __saturatef(float x) {
  return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f;
}
inline float rsqrtf(float x) {
  return 1.0f / std::sqrt(x);
}
inline double rsqrt(double x) {
  return 1.0 / std::sqrt(x);
}
inline float __frcp_rn(float x) {
  return 1.0f / x;
}
inline float __frsqrt_rn(float x) {
  return 1.0f / std::sqrt(x);
}
inline float __fsqrt_rn(float x) {
  return std::sqrt(x);
}
inline float __fadd_rn(float x, float y) {
  return x + y;
}
inline float __fsub_rn(float x, float y) {
  return x - y;
}
inline float __fmul_rn(float x, float y) {
  return x * y;
}
inline float __fdiv_rn(float x, float y) {
  return x / y;
}
inline float __fmaf_rn(float x, float y, float z) {
  return std::fma(x, y, z);
}
inline double __dadd_rn(double x, double y) {
  return x + y;
}
inline double __dmul_rn(double x, double y) {
  return x * y;
}
inline double __fma_rn(double x, double y, double z) {
  return std::fma(x, y, z);
}

inline int __float2int_rn(float x) {
  return static_cast<int>(std::nearbyint(x));
}
inline int __float2int_rz(float x) {
  return static_cast<int>(x);
}
inline int __float2int_rd(float x) {
  return static_cast<int>(std::floor(x));
}
inline float __int2float_rn(int x) {
  return static_cast<float>(x);
}
inline float __uint2float_rn(unsigned x) {
  return static_cast<float>(x);
}
inline float __double2float_rn(double x) {
  return static_cast<float>(x);
}

inline float __int_as_float(int x) {
  return std::bit_cast<float>(x);
}
inline float __uint_as_float(unsigned x) {
  return std::bit_cast<float>(x);
}
inline int __float_as_int(float x) {
  return std::bit_cast<int>(x);
}
inline unsigned __float_as_uint(float x) {
  return std::bit_cast<unsigned>(x);
}
inline double __longlong_as_double(long long x) {
  return std::bit_cast<double>(x);
}
inline long long __double_as_longlong(double x) {
  return std::bit_cast<long long>(x);
}

inline int __popc(unsigned x) {
  return std::popcount(x);
}
inline int __popcll(unsigned long long x) {
  return std::popcount(x);
}
inline int __ffs(int x) {
  return __builtin_ffs(x);
}
inline int __ffsll(long long x) {
  return __builtin_ffsll(x);
}
inline int __clz(int x) {
  return std::countl_zero(static_cast<unsigned>(x));
}
inline int __clzll(long long x) {
  return std::countl_zero(static_cast<unsigned long long>(x));
}
inline unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int bit = 0; bit < 32; ++bit) reversed |= (x >> bit & 1u) << (31 - bit);
  return reversed;
}
inline int __mulhi(int x, int y) {
  return static_cast<int>(static_cast<int64_t>(x) * y >> 32);
}
inline unsigned __umulhi(unsigned x, unsigned y) {
  return static_cast<unsigned>(static_cast<uint64_t>(x) * y >> 32);
}
inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
  return static_cast<unsigned long long>(static_cast<unsigned __int128>(x) * y >> 64);
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>((uint64_t{high} << 32 | low) << (shift & 31) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>((uint64_t{high} << 32 | low) >> (shift & 31));
}

// Loads and stores that say what caches should do with the line.
#define ADAGATE_EMULATOR_LOAD(name) \
  template <class T>                \
  inline T name(const T* from) {    \
    return *from;                   \
  }
#define ADAGATE_EMULATOR_STORE(name) \
  template <class T>                 \
  inline void name(T* to, T value) { \
    *to = value;                     \
  }
ADAGATE_EMULATOR_LOAD(__ldg)
ADAGATE_EMULATOR_LOAD(__ldcg)
ADAGATE_EMULATOR_LOAD(__ldca)
ADAGATE_EMULATOR_LOAD(__ldcs)
ADAGATE_EMULATOR_LOAD(__ldlu)
ADAGATE_EMULATOR_LOAD(__ldcv)
ADAGATE_EMULATOR_STORE(__stwb)
ADAGATE_EMULATOR_STORE(__stcg)
ADAGATE_EMULATOR_STORE(__stcs)
ADAGATE_EMULATOR_STORE(__stwt)
#undef ADAGATE_EMULATOR_LOAD
#undef ADAGATE_EMULATOR_STORE

#define ADAGATE_EMULATOR_EXTREMES(T) \
  inline T min(T x, T y) {           \
    return y < x ? y : x;            \
  }                                  \
  inline T max(T x, T y) {           \
    return x < y ? y : x;            \
  }
ADAGATE_EMULATOR_EXTREMES(int)
ADAGATE_EMULATOR_EXTREMES(unsigned)
ADAGATE_EMULATOR_EXTREMES(long)
ADAGATE_EMULATOR_EXTREMES(unsigned long)
ADAGATE_EMULATOR_EXTREMES(long long)
ADAGATE_EMULATOR_EXTREMES(unsigned long long)
#undef ADAGATE_EMULATOR_EXTREMES
// A number rather than NaN, as on the GPU.
inline float min(float x, float y) {
  return std::fmin(x, y);
}
inline float max(float x, float y) {
  return std::fmax(x, y);
}
inline double min(double x, double y) {
  return std::fmin(x, y);
}
inline double max(double x, double y) {
  return std::fmax(x, y);
}

[[noreturn]] inline void __trap() {
  adagate::emulator::stop("__trap");
}
inline void __nanosleep(unsigned) {}
