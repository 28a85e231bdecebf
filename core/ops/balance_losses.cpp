#include "core/ops/balance_losses.h"

#include <numeric>

namespace adagate {
namespace {

// Of factor * E sum_e f_e p_e with the shares f_e of `loads`.
double loss_of(std::vector<double> loads, const RoutingSums& sums, double factor) {
  double total = std::accumulate(loads.begin(), loads.end(), 0.0);
  if (total == 0 || sums.tokens == 0) return 0;
  for (double& load : loads) load /= total;
  double dot = std::inner_product(loads.begin(), loads.end(), sums.probability.begin(), 0.0);
  return factor * static_cast<double>(loads.size()) * dot / sums.tokens;
}

}  // namespace

double paper_loss(const RoutingSums& sums, double factor) {
  return loss_of(sums.single, sums, factor);
}

double switch_loss(const RoutingSums& sums, double factor) {
  return loss_of(sums.assigned, sums, factor);
}

Tensor routing_loss_gradients(const Tensor& sums, int64_t experts, const BalanceLoss& loss,
                              double factor, double z_factor) {
  check(sums.cols() == routing_sums_size(experts), "routing losses: {} sums for {} experts",
        sums.shape(), experts);
  Tensor gradients = Tensor::empty({sums.rows(), experts + 1}, DType::f64, sums.device());
  launch_on(sums.device(), RoutingLossGradientsArgs{.sums = sums.data<double>(),
                                                    .gradients = gradients.data<double>(),
                                                    .layers = sums.rows(),
                                                    .experts = experts,
                                                    .loss = &loss - kBalanceLosses.data(),
                                                    .factor = factor,
                                                    .z_factor = z_factor});
  return gradients;
}

}  // namespace adagate
