// Normalisation over the last dimension.
#pragma once

#include "core/device/launch.h"
#include "core/tensor/tensor.h"

namespace adagate {

// y = (x - mean) / sqrt(variance + epsilon) * gamma + beta per row; x [.., D], gamma, beta [D].
// gamma and beta are f32 when x is f32 or bf16, f64 when x is f64; statistics have that type too.
// Keeps x and two numbers a row for backward. Throws Error when sizes or types differ.
Tensor layer_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, double epsilon);

// y = x / sqrt(mean(x^2) + epsilon) * gamma per row; shapes and types as above.
Tensor rms_norm(const Tensor& x, const Tensor& gamma, double epsilon);

// RMS form: mean and beta are null. `C` below is Compute<dtype>.
struct NormArgs {
  static constexpr std::string_view kKernel = "norm";
  const void* x;      // [rows, cols]
  const void* gamma;  // C [cols]
  const void* beta;   // C [cols] or null
  void* y;            // [rows, cols]
  void* mean;         // C [rows] or null
  void* rstd;         // C [rows]
  int64_t rows, cols;
  double epsilon;
  DType dtype;
};

struct NormBackwardArgs {
  static constexpr std::string_view kKernel = "norm_backward";
  const void* x;      // what was normalised [rows, cols]
  const void* dy;     // [rows, cols]
  const void* gamma;  // C [cols]
  const void* mean;   // C [rows] or null
  const void* rstd;   // C [rows]
  void* dx;           // [rows, cols] or null
  void* dgamma;       // [cols] or null
  void* dbeta;        // [cols] or null
  bool accumulate_dx, accumulate_dgamma, accumulate_dbeta;
  DType dgamma_dtype, dbeta_dtype;
  int64_t rows, cols;
  DType dtype;
};

void launch(CpuStream&, const NormArgs&);
void launch(CudaStream&, const NormArgs&);
void launch(CpuStream&, const NormBackwardArgs&);
void launch(CudaStream&, const NormBackwardArgs&);

}  // namespace adagate
