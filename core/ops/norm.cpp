#include "core/ops/norm.h"

#include "core/autograd/tape.h"

namespace adagate {
namespace {

DType compute_dtype(DType t) {
  return t == DType::f64 ? DType::f64 : DType::f32;
}

void check_vector(const char* op, const char* name, const Tensor& v, const Tensor& x) {
  check(v.numel() == x.cols(), "{}: x has {} columns, {} {}", op, x.cols(), name, v.numel());
  check(v.dtype() == compute_dtype(x.dtype()), "{}: {} is {}, {} expected for x in {}", op, name,
        name_of(v.dtype()), name_of(compute_dtype(x.dtype())), name_of(x.dtype()));
}

// What backward keeps, the same for every form.
struct Saved {
  Tensor x, gamma, mean, rstd;
  Gradient dgamma, dbeta;
};

// dx may be empty; then only the parameters' gradients are made.
void norm_backward(const Saved& saved, const Tensor& dy, const Tensor& dsum,
                   const GradDestination& dx) {
  GradDestination dgamma = saved.dgamma.destination(), dbeta = saved.dbeta.destination();
  launch_on(saved.x.device(), NormBackwardArgs{.x = saved.x.raw(),
                                               .dy = dy.raw(),
                                               .dsum = dsum.raw(),
                                               .gamma = saved.gamma.raw(),
                                               .mean = saved.mean.raw(),
                                               .rstd = saved.rstd.raw(),
                                               .dx = dx.tensor.raw(),
                                               .dgamma = dgamma.tensor.raw(),
                                               .dbeta = dbeta.tensor.raw(),
                                               .accumulate_dx = dx.accumulate,
                                               .accumulate_dgamma = dgamma.accumulate,
                                               .accumulate_dbeta = dbeta.accumulate,
                                               .dgamma_dtype = dgamma.tensor.dtype(),
                                               .dbeta_dtype = dbeta.tensor.dtype(),
                                               .rows = saved.x.rows(),
                                               .cols = saved.x.cols(),
                                               .dtype = saved.x.dtype()});
}

// Runs the forward kernel; `sum` is empty without a residual. Returns y and fills `saved`.
Tensor norm_forward(const char* op, const Tensor& x, const Tensor& add, const Tensor& sum,
                    const Tensor& gamma, const Tensor& beta, double epsilon, Saved& saved) {
  check(x.shape().rank() >= 1, "{}: x has no dimension", op);
  check_vector(op, "gamma", gamma, x);
  if (beta) check_vector(op, "beta", beta, x);
  Tensor y = empty_like(x);
  DType stats = compute_dtype(x.dtype());
  saved.rstd = Tensor::empty({x.rows()}, stats, x.device());
  if (beta) saved.mean = Tensor::empty({x.rows()}, stats, x.device());
  launch_on(x.device(), NormArgs{.x = x.raw(),
                                 .add = add.raw(),
                                 .sum = sum.raw(),
                                 .gamma = gamma.raw(),
                                 .beta = beta.raw(),
                                 .y = y.raw(),
                                 .mean = saved.mean.raw(),
                                 .rstd = saved.rstd.raw(),
                                 .rows = x.rows(),
                                 .cols = x.cols(),
                                 .epsilon = epsilon,
                                 .dtype = x.dtype()});
  saved.x = sum ? sum.detach() : x.detach();
  saved.gamma = gamma.detach();
  saved.dgamma = Gradient(gamma);
  saved.dbeta = Gradient(beta);
  return y;
}

Tensor norm(const char* op, const Tensor& x, const Tensor& gamma, const Tensor& beta,
            double epsilon) {
  Saved saved;
  Tensor y = norm_forward(op, x, {}, {}, gamma, beta, epsilon, saved);
  if (!tape_needs({&x, &gamma, &beta})) return y;
  return record(op, y, [saved = std::move(saved), dx = Gradient(x)](const Tensor& dy) {
    norm_backward(saved, dy, {}, dx.destination());
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

ResidualNorm residual_norm(const Tensor& a, const Tensor& b, const Tensor& gamma,
                           const Tensor& beta, double epsilon) {
  check(a.shape() == b.shape() && a.dtype() == b.dtype(), "residual_norm: a is {} {}, b {} {}",
        name_of(a.dtype()), a.shape().str(), name_of(b.dtype()), b.shape().str());
  ResidualNorm out;
  out.sum = empty_like(a);
  Saved saved;
  out.normalised = norm_forward("residual_norm", a, b, out.sum, gamma, beta, epsilon, saved);
  if (!tape_needs({&a, &b, &gamma, &beta})) return out;
  record_many(
      "residual_norm", {&out.sum, &out.normalised},
      [saved = std::move(saved), da = Gradient(a), db = Gradient(b)](std::span<const Tensor> dys) {
        Tensor ds = dys[0];
        if (dys[1] && (da || db)) {
          ds = empty_like(saved.x);
          norm_backward(saved, dys[1], dys[0], {ds, false});
        } else if (dys[1]) {
          norm_backward(saved, dys[1], {}, {});
        }
        if (!ds) return;
        da.add(ds);
        db.add(ds);
      });
  return out;
}

}  // namespace adagate
