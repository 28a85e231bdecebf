#include "core/ops/relu_squared.h"

#include "core/autograd/tape.h"

namespace adagate {

Tensor relu_squared(const Tensor& x) {
  check(is_floating(x.dtype()), "relu_squared: x is {}, a floating type expected",
        name_of(x.dtype()));
  Tensor y = empty_like(x);
  launch_on(x.device(),
            ReluSquaredArgs{.x = x.raw(), .y = y.raw(), .n = x.numel(), .dtype = x.dtype()});
  if (!tape_needs({&x})) return y;
  // The captures are exactly what is kept for backward: x itself, and where its gradient goes.
  return record("relu_squared", y, [x = x.detach(), dx = Gradient(x)](const Tensor& dy) {
    if (GradDestination to = dx.destination()) {
      launch_on(x.device(), ReluSquaredBackwardArgs{.x = x.raw(),
                                                    .dy = dy.raw(),
                                                    .dx = to.tensor.raw(),
                                                    .accumulate = to.accumulate,
                                                    .n = x.numel(),
                                                    .dtype = x.dtype()});
    }
  });
}

}  // namespace adagate
