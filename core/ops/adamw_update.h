// The AdamW update (Loshchilov & Hutter 2019) and the norm it is clipped by, over flat buffers.
#pragma once

#include <cmath>

#include "core/base/hd.h"
#include "core/device/launch.h"
#include "core/tensor/tensor.h"

namespace adagate {

// What is the same for all elements of one step. T is float or double.
template <class T>
struct AdamWFactors {
  T gradient;  // clipping factor
  T beta1, beta2;
  T new1, new2;  // 1 - beta, rounded once: in f32 1 - 0.98f is off by 1e-6
  T rate;        // learning rate / (1 - beta1^step)
  T root;        // 1 / sqrt(1 - beta2^step)
  T epsilon;
  T shrink;  // 1 - learning rate * weight decay
};

template <class T>
ADAGATE_HD inline T adamw_element(const AdamWFactors<T>& f, T value, T gradient, T& m, T& v) {
  T g = gradient * f.gradient;
  m = f.beta1 * m + f.new1 * g;
  v = f.beta2 * v + f.new2 * g * g;
  return value * f.shrink - f.rate * m / (std::sqrt(v) * f.root + f.epsilon);
}

// One read of gradient, value and moments and one write of all but the gradient: 28 bytes an
// element in f32, 30 with the bf16 copy.
struct AdamWArgs {
  static constexpr std::string_view kKernel = "adamw";
  void* value;           // [n] f32 or f64
  const void* gradient;  // [n]
  void* m;               // [n]
  void* v;               // [n]
  void* compute;         // [n] bf16 copy of value, or null
  int64_t n;
  AdamWFactors<double> factors;
  DType dtype;  // of all but compute
};

void launch(CpuStream&, const AdamWArgs&);
void launch(CudaStream&, const AdamWArgs&);

struct SumOfSquaresArgs {
  static constexpr std::string_view kKernel = "sum_of_squares";
  const void* x;   // [n] f32 or f64
  double* result;  // [1]
  int64_t n;
  DType dtype;
};

void launch(CpuStream&, const SumOfSquaresArgs&);
void launch(CudaStream&, const SumOfSquaresArgs&);

// result f64 [1]; summed over fixed blocks: the same for any number of threads.
void sum_of_squares(const Tensor& x, const Tensor& result);
// The same for the host, which waits for it.
double sum_of_squares(const Tensor& x);

}  // namespace adagate
