// Squared rectifier.
#pragma once

#include "core/device/launch.h"
#include "core/tensor/tensor.h"

namespace adagate {

// y = max(x, 0)^2, elementwise (So et al. 2021); x of any shape, f32, bf16 or f64.
Tensor relu_squared(const Tensor& x);

struct ReluSquaredArgs {
  static constexpr std::string_view kKernel = "relu_squared";
  const void* x;  // [n]
  void* y;        // [n]
  int64_t n;
  DType dtype;
};

// dx (+)= 2 max(x, 0) dy
struct ReluSquaredBackwardArgs {
  static constexpr std::string_view kKernel = "relu_squared_backward";
  const void* x;   // [n]
  const void* dy;  // [n]
  void* dx;        // [n]
  bool accumulate;
  int64_t n;
  DType dtype;
};

void launch(CpuStream&, const ReluSquaredArgs&);
void launch(CudaStream&, const ReluSquaredArgs&);
void launch(CpuStream&, const ReluSquaredBackwardArgs&);
void launch(CudaStream&, const ReluSquaredBackwardArgs&);

}  // namespace adagate
