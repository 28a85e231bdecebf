#include "core/tensor/accumulate.h"

namespace adagate {

void accumulate_into(const Tensor& to, const Tensor& value) {
  check(to.numel() == value.numel(), "gradient of {} added to one of {}", value.shape(),
        to.shape());
  int64_t n = to.numel();
  visit_floating(to.dtype(), [&](auto to_type) {
    visit_floating(value.dtype(), [&](auto value_type) {
      using To = decltype(to_type);
      auto* a = to.data<To>();
      const auto* b = value.data<decltype(value_type)>();
#pragma omp parallel for simd schedule(static) if (n > (1 << 15))
      for (int64_t i = 0; i < n; ++i) {
        a[i] = To(static_cast<Compute<To>>(a[i]) + static_cast<Compute<To>>(b[i]));
      }
    });
  });
}

}  // namespace adagate
