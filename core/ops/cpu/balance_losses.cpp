// A few hundred numbers per step: one thread.
#include "core/ops/balance_losses.h"

#include <algorithm>

namespace adagate {

void launch(CpuStream&, const RoutingLossGradientsArgs& a) {
  const BalanceLoss& loss = kBalanceLosses[static_cast<size_t>(a.loss)];
  for (int64_t l = 0; l < a.layers; ++l) {
    RoutingSumsView sums{a.sums + l * routing_sums_size(a.experts), a.experts};
    double* gradient = a.gradients + l * (a.experts + 1);
    if (loss.gradient && a.factor != 0) {
      loss.gradient(sums, a.factor, gradient);
    } else {
      std::fill_n(gradient, a.experts, 0.0);
    }
    gradient[a.experts] = sums.tokens() > 0 ? a.z_factor / sums.tokens() : 0.0;
  }
}

}  // namespace adagate
