// Functions of whole vectors, and loops over rows by vectors. Numbers of any floating type are
// computed with in f32 (f64 for f64) and rounded when stored; bf16 takes one or two instructions
// for 16 numbers either way, where a compiler needs a dozen.
#pragma once

#include "core/base/vector_math.h"
#include "core/ops/cpu/vector.h"
#include "core/ops/dropout.h"

namespace adagate {

namespace vector_math {

// Vec<float> and Vec<double> as template arguments are compared: without may_alias.
typedef float Floats __attribute__((vector_size(kVectorBytes)));
typedef double Doubles __attribute__((vector_size(kVectorBytes)));

template <>
struct Functions<Floats> {
  using Scalar = float;
  // A denormal number or 0 below -126, infinity above 128 (126 without AVX-512).
  static Vec<float> exp2(Vec<float> x) {
    x = max<float>(broadcast(-160.0f), x);  // NaN stays NaN
#if defined(__AVX512F__)
    return adagate::exp2(min<float>(broadcast(140.0f), x));
#else
    const Vec<float> y = adagate::exp2(min<float>(broadcast(126.0f), x));
    return x > 126.0f ? broadcast(INFINITY) : y;
#endif
  }
  static Vec<float> normal_cdf(Vec<float> x) {
    return normal_cdf_f32(x);
  }
};
template <>
struct Functions<Doubles> {
  using Scalar = double;
  static Vec<double> exp2(Vec<double> x) { return adagate::exp2(x); }
  static Vec<double> normal_cdf(Vec<double> x) {
    for (int i = 0; i < kLanes<double>; ++i) x[i] = vector_math::normal_cdf(x[i]);
    return x;
  }
};

}  // namespace vector_math

// What stands in the lanes of a vector at one place of a row: kLanes numbers, or the `count` that
// are left at its end, then zeros, which are not stored.
struct WholeVector {
  template <class T>
  static auto load(const T* from) {
    return load_any(from);
  }
  template <class T, class V>
  static void store(T* to, V value) {
    store_any(to, value);
  }
  // The value, 0 in lanes that are not of the row.
  template <class V>
  static V only(V value) {
    return value;
  }
};
struct PartOfVector {
  int64_t count;

  template <class T>
  auto load(const T* from) const {
    T all[kLanes<Compute<T>>] = {};
    for (int64_t i = 0; i < count; ++i) all[i] = from[i];
    return load_any(all);
  }
  template <class T, class V>
  void store(T* to, V value) const {
    T all[kLanes<Compute<T>>];
    store_any(all, value);
    for (int64_t i = 0; i < count; ++i) to[i] = all[i];
  }
  template <class V>
  V only(V value) const {
    for (int64_t i = count; i < static_cast<int64_t>(sizeof(V) / sizeof(value[0])); ++i)
      value[i] = 0;
    return value;
  }
};

// f(place, lanes) for the vectors of a row of n numbers.
template <class C, class F>
inline void for_each_vector(int64_t n, F&& f) {
  int64_t i = 0;
  for (; i + kLanes<C> <= n; i += kLanes<C>) f(i, WholeVector{});
  if (i < n) f(i, PartOfVector{n - i});
}

// The sum of f(place, lanes) over the vectors and lanes of a row. Four partial sums: an addition
// need not wait for the one before.
template <class C, class F>
inline C sum_of_vectors(int64_t n, F&& f) {
  constexpr int64_t L = kLanes<C>;
  Vec<C> sum[4] = {};
  int64_t i = 0;
  for (; i + 4 * L <= n; i += 4 * L) {
#pragma GCC unroll 4
    for (int64_t k = 0; k < 4; ++k) sum[k] += f(i + k * L, WholeVector{});
  }
  for (; i + L <= n; i += L) sum[0] += f(i, WholeVector{});
  if (i < n) sum[1] += f(i, PartOfVector{n - i});
  return sum_lanes<C>((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

// Factors of dropout, mix32 and DropoutMask::factor for a vector: `x` is row_key + column *
// Rng::kRowStride of each lane.
inline Vec<float> dropout_factors(const DropoutMask& mask, Vec<uint32_t> x) {
  x ^= x >> 16;
  x *= 0x21f0aaadu;
  x ^= x >> 15;
  x *= 0x735a2d97u;
  x ^= x >> 15;
  return x >= mask.threshold ? broadcast(mask.scale) : Vec<float>{};
}

}  // namespace adagate
