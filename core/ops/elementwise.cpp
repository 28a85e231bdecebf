#include "core/ops/elementwise.h"

#include "core/autograd/tape.h"

namespace adagate {
namespace {

void check_alike(const char* op, const Tensor& a, const Tensor& b) {
  check(a.shape() == b.shape() && a.dtype() == b.dtype(), "{}: a is {} {}, b {} {}", op,
        name_of(a.dtype()), a.shape(), name_of(b.dtype()), b.shape());
}

void apply(Elementwise kind, const Tensor& a, const Tensor& b, const GradDestination& y,
           double factor = 1.0) {
  if (!y) return;
  launch_on(a.device(), ElementwiseArgs{.kind = kind,
                                        .a = a.raw(),
                                        .b = b.raw(),
                                        .y = y.tensor.raw(),
                                        .accumulate = y.accumulate,
                                        .factor = factor,
                                        .n = a.numel(),
                                        .dtype = a.dtype()});
}

}  // namespace

Tensor add(const Tensor& a, const Tensor& b) {
  check_alike("add", a, b);
  Tensor y = empty_like(a);
  apply(Elementwise::add, a, b, {y, false});
  if (!tape_needs({&a, &b})) return y;
  return record("add", y, [da = Gradient(a), db = Gradient(b)](const Tensor& dy) {
    da.add(dy);
    db.add(dy);
  });
}

Tensor mul(const Tensor& a, const Tensor& b) {
  check_alike("mul", a, b);
  Tensor y = empty_like(a);
  apply(Elementwise::mul, a, b, {y, false});
  if (!tape_needs({&a, &b})) return y;
  return record(
      "mul", y,
      [a = a.detach(), b = b.detach(), da = Gradient(a), db = Gradient(b)](const Tensor& dy) {
        apply(Elementwise::mul, dy, b, da.destination());
        apply(Elementwise::mul, dy, a, db.destination());
      });
}

Tensor scale(const Tensor& x, double factor) {
  Tensor y = empty_like(x);
  apply(Elementwise::scale, x, {}, {y, false}, factor);
  if (!tape_needs({&x})) return y;
  return record("scale", y, [factor, dx = Gradient(x)](const Tensor& dy) {
    apply(Elementwise::scale, dy, {}, dx.destination(), factor);
  });
}

Tensor sum(const Tensor& x) {
  Tensor y = Tensor::empty({1}, compute_dtype(x.dtype()), x.device());
  launch_on(x.device(), SumArgs{.x = x.raw(), .y = y.raw(), .n = x.numel(), .dtype = x.dtype()});
  if (!tape_needs({&x})) return y;
  return record("sum", y, [dx = Gradient(x), dtype = x.dtype()](const Tensor& dy) {
    if (GradDestination to = dx.destination())
      launch_on(dy.device(), BroadcastArgs{.dy = dy.raw(),
                                           .dx = to.tensor.raw(),
                                           .accumulate = to.accumulate,
                                           .n = to.tensor.numel(),
                                           .dtype = dtype});
  });
}

}  // namespace adagate
