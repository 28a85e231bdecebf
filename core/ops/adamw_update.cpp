#include "core/ops/adamw_update.h"

namespace adagate {

double sum_of_squares(const Tensor& x) {
  double result = 0;
  if (x.numel() > 0) {
    launch_on(x.device(), SumOfSquaresArgs{x.raw(), &result, x.numel(), x.dtype()});
  }
  return result;
}

}  // namespace adagate
