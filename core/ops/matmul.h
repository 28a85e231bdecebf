// The matrix product every dense layer, expert and loss goes through.
#pragma once

#include "core/autograd/tape.h"
#include "core/device/launch.h"
#include "core/tensor/tensor.h"

namespace adagate {

// C[m, n] (+)= op(A)[m, k] op(B)[k, n] (+ bias[n]), row-major; op transposes what is stored when
// its flag is set (A is stored [k, m] then). Products are summed in f32, in f64 if C is f64. Types
// may be mixed freely; f32, f64 and bf16 x bf16 run without conversions.
struct MatmulArgs {
  static constexpr std::string_view kKernel = "matmul";
  const void* a = nullptr;
  const void* b = nullptr;
  void* c = nullptr;
  const void* bias = nullptr;  // null: none; not together with `accumulate`
  int64_t m = 0, n = 0, k = 0;
  bool trans_a = false, trans_b = false;
  int64_t lda = 0, ldb = 0, ldc = 0;  // elements between stored rows; 0: dense
  DType a_type = DType::f32, b_type = DType::f32, c_type = DType::f32, bias_type = DType::f32;
  bool accumulate = false;
};
void launch(CpuStream&, const MatmulArgs&);
void launch(CudaStream&, const MatmulArgs&);

// c (+)= op(a) op(b) for matrices [rows(), cols()]. Not recorded on the tape. Throws Error when the
// inner sizes differ.
struct Operand {
  const Tensor& tensor;
  bool transposed = false;
};
inline Operand transposed(const Tensor& x) {
  return {x, true};
}
void matmul_into(const Tensor& c, Operand a, Operand b, bool accumulate = false);

// a[m, k] b[k, n] -> [m, n] of `dtype`. Not recorded on the tape.
Tensor matmul(Operand a, Operand b, DType dtype);

}  // namespace adagate
