#include "core/ops/grouped_linear.h"

#include "core/ops/column_sum.h"

namespace adagate {
namespace {

using Kind = GroupedMatmulArgs::Kind;

void check_sizes(const Tensor& x, const Tensor& w, const GroupOffsets& offsets,
                 const Tensor& bias) {
  check(w.shape().rank() == 3, "grouped_linear: the weight must be [groups, in, out], it is {}",
        w.shape());
  check(x.cols() == w.dim(1), "grouped_linear: x has {} columns, the weights {} rows", x.cols(),
        w.dim(1));
  check(offsets.cover(w.dim(0), x.rows()), "grouped_linear: {} offsets for {} groups and {} rows",
        offsets.groups() + 1, w.dim(0), x.rows());
  check(!bias || bias.numel() == w.dim(0) * w.dim(2), "grouped_linear: bias {} for weights {}",
        bias.shape(), w.shape());
}

}  // namespace

Tensor grouped_linear(const Tensor& x, const Tensor& w, const GroupOffsets& offsets,
                      const Tensor& bias) {
  check_sizes(x, w, offsets, bias);
  int64_t groups = w.dim(0), in = w.dim(1), out = w.dim(2);
  Shape shape = x.shape();
  shape[-1] = out;
  Tensor y = Tensor::empty(shape, w.dtype(), x.device());
  launch_on(x.device(), GroupedMatmulArgs{.kind = Kind::rows,
                                          .a = x.raw(),
                                          .b = w.raw(),
                                          .c = y.raw(),
                                          .bias = bias.raw(),
                                          .offsets = offsets.device.data<int64_t>(),
                                          .host_offsets = offsets.on_host(),
                                          .rows = x.rows(),
                                          .groups = groups,
                                          .k = in,
                                          .m = out,
                                          .a_type = x.dtype(),
                                          .b_type = w.dtype(),
                                          .c_type = y.dtype(),
                                          .bias_type = bias.dtype()});
  if (!tape_needs({&x, &w, &bias})) return y;
  auto backward = [x = x.detach(), w = w.detach(), dx = Gradient(x), dw = Gradient(w),
                   db = Gradient(bias), offsets](const Tensor& dy) {
    int64_t groups = w.dim(0), in = w.dim(1), out = w.dim(2);
    if (auto to = dw.destination()) {
      launch_on(dy.device(), GroupedMatmulArgs{.kind = Kind::weights,
                                               .a = x.raw(),
                                               .b = dy.raw(),
                                               .c = to.tensor.raw(),
                                               .offsets = offsets.device.data<int64_t>(),
                                               .host_offsets = offsets.on_host(),
                                               .rows = dy.rows(),
                                               .groups = groups,
                                               .k = in,
                                               .m = out,
                                               .a_type = x.dtype(),
                                               .b_type = dy.dtype(),
                                               .c_type = to.tensor.dtype(),
                                               .accumulate = to.accumulate});
    }
    if (auto to = db.destination()) {
      launch_on(dy.device(), ColumnSumArgs{.x = dy.raw(),
                                           .out = to.tensor.raw(),
                                           .offsets = offsets.device.data<int64_t>(),
                                           .rows = dy.rows(),
                                           .cols = out,
                                           .groups = groups,
                                           .x_type = dy.dtype(),
                                           .out_type = to.tensor.dtype(),
                                           .accumulate = to.accumulate});
    }
    if (auto to = dx.destination()) {
      launch_on(dy.device(), GroupedMatmulArgs{.kind = Kind::rows,
                                               .a = dy.raw(),
                                               .b = w.raw(),
                                               .c = to.tensor.raw(),
                                               .offsets = offsets.device.data<int64_t>(),
                                               .host_offsets = offsets.on_host(),
                                               .rows = dy.rows(),
                                               .groups = groups,
                                               .k = out,
                                               .m = in,
                                               .trans_b = true,
                                               .a_type = dy.dtype(),
                                               .b_type = w.dtype(),
                                               .c_type = to.tensor.dtype(),
                                               .accumulate = to.accumulate});
    }
  };
  return record("grouped_linear", y, std::move(backward));
}

}  // namespace adagate
