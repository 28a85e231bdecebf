// A float whose division and powers of two are the GPU's approximations (2 units in the last
// place), for activations: with exact division their kernels would wait for arithmetic instead of
// memory. core/ops/activation_math.h takes it for a number.
#pragma once

#include "core/ops/activation_math.h"

namespace adagate {

namespace cuda {

struct QuickFloat {
  float number = 0;

  QuickFloat() = default;
  ADAGATE_HD QuickFloat(float x) : number(x) {}

  ADAGATE_HD QuickFloat operator-() const { return -number; }
  friend ADAGATE_HD QuickFloat operator+(QuickFloat a, QuickFloat b) { return a.number + b.number; }
  friend ADAGATE_HD QuickFloat operator-(QuickFloat a, QuickFloat b) { return a.number - b.number; }
  friend ADAGATE_HD QuickFloat operator*(QuickFloat a, QuickFloat b) { return a.number * b.number; }
  friend ADAGATE_HD QuickFloat operator/(QuickFloat a, QuickFloat b) {
#ifdef __CUDA_ARCH__
    return __fdividef(a.number, b.number);
#else
    return a.number / b.number;
#endif
  }
  friend ADAGATE_HD bool operator<(QuickFloat a, QuickFloat b) {
    return a.number < b.number;
  }
  friend ADAGATE_HD bool operator>(QuickFloat a, QuickFloat b) {
    return a.number > b.number;
  }
};

}  // namespace cuda

namespace vector_math {

template <>
struct Functions<cuda::QuickFloat> {
  using Scalar = float;
  ADAGATE_HD static cuda::QuickFloat exp2(cuda::QuickFloat x) { return ::exp2f(x.number); }
  ADAGATE_HD static cuda::QuickFloat normal_cdf(cuda::QuickFloat x) { return normal_cdf_f32(x); }
};

}  // namespace vector_math

namespace cuda {

// F::value(x) and F::derivative(x), F of namespace activation.
template <class F>
ADAGATE_HD inline float activated(float x) {
  return F::value(QuickFloat(x)).number;
}
template <class F>
ADAGATE_HD inline double activated(double x) {
  return F::value(x);
}
template <class F>
ADAGATE_HD inline float slope(float x) {
  return F::derivative(QuickFloat(x)).number;
}
template <class F>
ADAGATE_HD inline double slope(double x) {
  return F::derivative(x);
}

}  // namespace cuda
}  // namespace adagate
