#include "core/tensor/accumulate.h"

#include "core/tensor/tensor_kernels.h"

namespace adagate {

void accumulate_into(const Tensor& to, const Tensor& value) {
  check(to.numel() == value.numel(), "gradient of {} added to one of {}", value.shape(),
        to.shape());
  launch_on(to.device(), AccumulateArgs{.to = to.raw(),
                                        .from = value.raw(),
                                        .n = to.numel(),
                                        .to_type = to.dtype(),
                                        .from_type = value.dtype()});
}

}  // namespace adagate
