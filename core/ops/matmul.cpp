#include "core/ops/matmul.h"

namespace adagate {

void matmul_into(const Tensor& c, Operand a, Operand b, bool accumulate) {
  int64_t m = a.transposed ? a.tensor.cols() : a.tensor.rows();
  int64_t k = a.transposed ? a.tensor.rows() : a.tensor.cols();
  int64_t k_b = b.transposed ? b.tensor.cols() : b.tensor.rows();
  int64_t n = b.transposed ? b.tensor.rows() : b.tensor.cols();
  check(k == k_b, "matmul: [{}, {}] times [{}, {}]", m, k, k_b, n);
  check(c.numel() == m * n, "matmul: result [{}, {}] into {}", m, n, c.shape());
  launch_on(c.device(), MatmulArgs{.a = a.tensor.raw(),
                                   .b = b.tensor.raw(),
                                   .c = c.raw(),
                                   .m = m,
                                   .n = n,
                                   .k = k,
                                   .trans_a = a.transposed,
                                   .trans_b = b.transposed,
                                   .a_type = a.tensor.dtype(),
                                   .b_type = b.tensor.dtype(),
                                   .c_type = c.dtype(),
                                   .accumulate = accumulate});
}

Tensor matmul(Operand a, Operand b, DType dtype) {
  int64_t m = a.transposed ? a.tensor.cols() : a.tensor.rows();
  int64_t n = b.transposed ? b.tensor.rows() : b.tensor.cols();
  Tensor c = Tensor::empty({m, n}, dtype, a.tensor.device());
  matmul_into(c, a, b);
  return c;
}

}  // namespace adagate
