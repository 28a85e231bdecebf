#include "core/ops/adamw_update.h"

namespace adagate {

void sum_of_squares(const Tensor& x, const Tensor& result) {
  launch_on(x.device(),
            SumOfSquaresArgs{
                .x = x.raw(), .result = result.data<double>(), .n = x.numel(), .dtype = x.dtype()});
}

double sum_of_squares(const Tensor& x) {
  Tensor result = Tensor::empty({1}, DType::f64, x.device());
  sum_of_squares(x, result);
  return result.to_host<double>()[0];
}

}  // namespace adagate
