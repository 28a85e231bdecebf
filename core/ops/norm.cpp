#include "core/ops/norm.h"

#include "core/autograd/tape.h"

namespace adagate {
namespace {

void check_vector(const char* op, const char* name, const Tensor& v, const Tensor& x) {
  check(v.numel() == x.cols(), "{}: x has {} columns, {} {}", op, x.cols(), name, v.numel());
  check(v.dtype() == compute_dtype(x.dtype()), "{}: {} is {}, {} expected for x in {}", op, name,
        name_of(v.dtype()), name_of(compute_dtype(x.dtype())), name_of(x.dtype()));
}

// Either form; beta is empty in the RMS form.
Tensor norm(const char* op, const Tensor& x, const Tensor& gamma, const Tensor& beta,
            double epsilon) {
  check(x.shape().rank() >= 1, "{}: x has no dimension", op);
  check_vector(op, "gamma", gamma, x);
  if (beta) check_vector(op, "beta", beta, x);
  Tensor y = empty_like(x), mean;
  const DType stats = compute_dtype(x.dtype());
  Tensor rstd = Tensor::empty({x.rows()}, stats, x.device());
  if (beta) mean = Tensor::empty({x.rows()}, stats, x.device());
  launch_on(x.device(), NormArgs{.x = x.raw(),
                                 .gamma = gamma.raw(),
                                 .beta = beta.raw(),
                                 .y = y.raw(),
                                 .mean = mean.raw(),
                                 .rstd = rstd.raw(),
                                 .rows = x.rows(),
                                 .cols = x.cols(),
                                 .epsilon = epsilon,
                                 .dtype = x.dtype()});
  if (!tape_needs({&x, &gamma, &beta})) return y;
  return record(op, y,
                [x = x.detach(), gamma = gamma.detach(), mean, rstd, dx = Gradient(x),
                 dgamma = Gradient(gamma), dbeta = Gradient(beta)](const Tensor& dy) {
                  GradDestination to = dx.destination();
                  GradDestination to_gamma = dgamma.destination(), to_beta = dbeta.destination();
                  launch_on(x.device(), NormBackwardArgs{.x = x.raw(),
                                                         .dy = dy.raw(),
                                                         .gamma = gamma.raw(),
                                                         .mean = mean.raw(),
                                                         .rstd = rstd.raw(),
                                                         .dx = to.tensor.raw(),
                                                         .dgamma = to_gamma.tensor.raw(),
                                                         .dbeta = to_beta.tensor.raw(),
                                                         .accumulate_dx = to.accumulate,
                                                         .accumulate_dgamma = to_gamma.accumulate,
                                                         .accumulate_dbeta = to_beta.accumulate,
                                                         .dgamma_dtype = to_gamma.tensor.dtype(),
                                                         .dbeta_dtype = to_beta.tensor.dtype(),
                                                         .rows = x.rows(),
                                                         .cols = x.cols(),
                                                         .dtype = x.dtype()});
                });
}

}  // namespace

Tensor layer_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, double epsilon) {
  check(static_cast<bool>(beta), "layer_norm: beta is empty");
  return norm("layer_norm", x, gamma, beta, epsilon);
}

Tensor rms_norm(const Tensor& x, const Tensor& gamma, double epsilon) {
  return norm("rms_norm", x, gamma, {}, epsilon);
}

}  // namespace adagate
