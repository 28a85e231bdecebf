#include "core/ops/dropout.h"

#include "core/autograd/tape.h"

namespace adagate {
namespace {

// Writes dx and dbias from dy; without dropout dx is dy itself and is passed on without a copy.
void dropout_backward(const Tensor& dy, const DropoutSite& site, const Tensor& addresses,
                      const Gradient& dx, const Gradient& dbias) {
  GradDestination to_x, to_bias = dbias.destination();
  if (site.active()) {
    to_x = dx.destination();
  } else {
    dx.add(dy);
  }
  if (!to_x && !to_bias) return;
  launch_on(dy.device(),
            DropoutBackwardArgs{.dy = dy.raw(),
                                .dx = to_x.tensor.raw(),
                                .dbias = to_bias.tensor.raw(),
                                .addresses = site.active() ? addresses.data<int64_t>() : nullptr,
                                .rng = site.rng,
                                .mask = DropoutMask(site.probability),
                                .accumulate_dx = to_x.accumulate,
                                .accumulate_dbias = to_bias.accumulate,
                                .dbias_dtype = to_bias.tensor.dtype(),
                                .rows = dy.rows(),
                                .cols = dy.cols(),
                                .dtype = dy.dtype()});
}

Tensor dropout_forward(const Tensor& x, const Tensor& bias, const Tensor& residual,
                       const DropoutSite& site, const Tensor& addresses) {
  Tensor y = empty_like(x);
  launch_on(x.device(),
            DropoutArgs{.x = x.raw(),
                        .bias = bias.raw(),
                        .residual = residual.raw(),
                        .y = y.raw(),
                        .addresses = site.active() ? addresses.data<int64_t>() : nullptr,
                        .rng = site.rng,
                        .mask = DropoutMask(site.probability),
                        .rows = x.rows(),
                        .cols = x.cols(),
                        .dtype = x.dtype()});
  return y;
}

}  // namespace

void check_dropout(const char* op, const DropoutSite& site, const Tensor& addresses, int64_t rows) {
  check(site.probability >= 0 && site.probability < 1,
        "{}: dropout probability {} is outside [0, 1)", op, site.probability);
  if (!site.active()) return;
  check(addresses.numel() == rows && addresses.dtype() == DType::i64,
        "{}: dropout needs one i64 id for each of {} rows, got {} {}", op, rows, addresses.numel(),
        name_of(addresses.dtype()));
}

Tensor dropout(const Tensor& x, const DropoutSite& site, const Tensor& addresses) {
  check_dropout("dropout", site, addresses, x.rows());
  if (!site.active()) return x;
  Tensor y = dropout_forward(x, {}, {}, site, addresses);
  if (!tape_needs({&x})) return y;
  return record("dropout", y, [site, addresses, dx = Gradient(x)](const Tensor& dy) {
    dropout_backward(dy, site, addresses, dx, {});
  });
}

Tensor bias_dropout_add(const Tensor& x, const Tensor& bias, const Tensor& residual,
                        const DropoutSite& site, const Tensor& addresses) {
  check_dropout("bias_dropout_add", site, addresses, x.rows());
  check(x.shape() == residual.shape() && x.dtype() == residual.dtype(),
        "bias_dropout_add: x is {} {}, residual {} {}", name_of(x.dtype()), x.shape(),
        name_of(residual.dtype()), residual.shape());
  if (bias) {
    check(bias.numel() == x.cols() && bias.dtype() == x.dtype(),
          "bias_dropout_add: x has {} columns in {}, bias {} in {}", x.cols(), name_of(x.dtype()),
          bias.numel(), name_of(bias.dtype()));
  }
  Tensor y = dropout_forward(x, bias, residual, site, addresses);
  if (!tape_needs({&x, &bias, &residual})) return y;
  return record("bias_dropout_add", y,
                [site, addresses, dx = Gradient(x), dbias = Gradient(bias),
                 dresidual = Gradient(residual)](const Tensor& dy) {
                  dropout_backward(dy, site, addresses, dx, dbias);
                  dresidual.add(dy);
                });
}

}  // namespace adagate
