#include "core/ops/linear.h"

#include "core/ops/column_sum.h"
#include "core/ops/matmul.h"

namespace adagate {

Tensor linear(const Tensor& x, const Tensor& w, const Tensor& bias) {
  check(w.shape().rank() == 2, "linear: the weight must be [in, out], it is {}", w.shape());
  check(x.cols() == w.dim(0), "linear: x has {} columns, the weight {} rows", x.cols(), w.dim(0));
  check(!bias || bias.numel() == w.dim(1), "linear: bias has {} elements, the weight {} columns",
        bias.numel(), w.dim(1));
  Shape shape = x.shape();
  shape[-1] = w.dim(1);
  Tensor y = Tensor::empty(shape, w.dtype(), x.device());
  launch_on(x.device(), MatmulArgs{.a = x.raw(),
                                   .b = w.raw(),
                                   .c = y.raw(),
                                   .bias = bias.raw(),
                                   .m = x.rows(),
                                   .n = w.dim(1),
                                   .k = w.dim(0),
                                   .a_type = x.dtype(),
                                   .b_type = w.dtype(),
                                   .c_type = y.dtype(),
                                   .bias_type = bias.dtype()});
  if (!tape_needs({&x, &w, &bias})) return y;
  return record("linear", y,
                [x = x.detach(), w = w.detach(), dx = Gradient(x), dw = Gradient(w),
                 db = Gradient(bias)](const Tensor& dy) {
                  if (auto to = dw.destination()) {
                    matmul_into(to.tensor, transposed(x), {dy}, to.accumulate);
                  }
                  if (auto to = db.destination()) {
                    launch_on(dy.device(), ColumnSumArgs{.x = dy.raw(),
                                                         .out = to.tensor.raw(),
                                                         .rows = dy.rows(),
                                                         .cols = dy.cols(),
                                                         .x_type = dy.dtype(),
                                                         .out_type = to.tensor.dtype(),
                                                         .accumulate = to.accumulate});
                  }
                  if (auto to = dx.destination()) {
                    matmul_into(to.tensor, {dy}, transposed(w), to.accumulate);
                  }
                });
}

}  // namespace adagate
