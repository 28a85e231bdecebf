// Auxiliary losses that keep the load of the experts even, over the sums of all real tokens t of
// their scope (T of them), for each MoE layer:
//   balance  c E sum_e f_e p_e, p_e the mean probability of expert e, f_e its share of what the
//            loss counts; nothing counted: zero
//   z        c_z mean_t logsumexp(logits_t)^2
// Their gradients for the tokens of a rank are local, exact and unscaled: summed over ranks and
// micro-batches they are the gradient of the loss, whatever the layout.
#pragma once

#include <array>
#include <string_view>

#include "core/ops/routing.h"

namespace adagate {

struct BalanceLoss {
  std::string_view name;
  std::string_view help;
  // The loss times `factor`, on the host. Null: no loss.
  double (*value)(const RoutingSums& sums, double factor) = nullptr;
  // Its gradient by the probabilities of one token, into gradient [experts], where the sums are:
  // for kernels, so it is ADAGATE_HD. A GPU's kernel takes it from the table when it is compiled
  // (tests/cuda/shared_arithmetic.cu), since this address is the host's function.
  void (*gradient)(const RoutingSumsView& sums, double factor, double* gradient) = nullptr;
};

double paper_loss(const RoutingSums& sums, double factor);
double switch_loss(const RoutingSums& sums, double factor);

// Of factor * E sum_e f_e p_e with the shares f_e of `loads` [experts].
ADAGATE_HD inline void gradient_of_shares(const double* loads, const RoutingSumsView& sums,
                                          double factor, double* gradient) {
  double total = 0;
  for (int64_t e = 0; e < sums.experts; ++e) total += loads[e];
  bool none = total == 0 || sums.tokens() == 0;
  double scale = none ? 0 : factor * static_cast<double>(sums.experts) / sums.tokens();
  for (int64_t e = 0; e < sums.experts; ++e) gradient[e] = none ? 0 : loads[e] / total * scale;
}
ADAGATE_HD inline void paper_loss_gradient(const RoutingSumsView& sums, double factor,
                                           double* gradient) {
  gradient_of_shares(sums.single(), sums, factor, gradient);
}
ADAGATE_HD inline void switch_loss_gradient(const RoutingSumsView& sums, double factor,
                                            double* gradient) {
  gradient_of_shares(sums.assigned(), sums, factor, gradient);
}

// A new loss is a line here; tests/moe/test_balance_losses.cpp runs over the table.
inline constexpr std::array kBalanceLosses = {
    BalanceLoss{"paper",
                "experts * sum of (share of the single-expert tokens) * (mean probability)",
                paper_loss, paper_loss_gradient},
    BalanceLoss{"switch", "the same with the share of all assignments", switch_loss,
                switch_loss_gradient},
    BalanceLoss{"none", "no balance loss"},
};

// sums f64 [layers, routing_sums_size(experts)] over the whole scope -> f64 [layers, experts + 1]
// on their device: of each layer what routing_weights() takes, with `factor` times the loss
// (0: without) and `z_factor` times the mean of logsumexp^2.
Tensor routing_loss_gradients(const Tensor& sums, int64_t experts, const BalanceLoss& loss,
                              double factor, double z_factor);

struct RoutingLossGradientsArgs {
  static constexpr std::string_view kKernel = "routing_loss_gradients";
  const double* sums = nullptr;
  double* gradients = nullptr;
  int64_t layers = 0, experts = 0;
  int64_t loss = 0;  // place in kBalanceLosses
  double factor = 0, z_factor = 0;
};
void launch(CpuStream&, const RoutingLossGradientsArgs&);
void launch(CudaStream&, const RoutingLossGradientsArgs&);

}  // namespace adagate
