#include "moe/balance_loss.h"

#include <numeric>

#include "core/base/named.h"
#include "core/ops/routing.h"
#include "moe/moe_config.h"

namespace adagate {
namespace {

// f_e, whose counts are `loads`; empty when nothing was counted.
std::vector<double> shares_of(std::vector<double> loads) {
  double total = std::accumulate(loads.begin(), loads.end(), 0.0);
  if (total == 0) return {};
  for (double& load : loads) load /= total;
  return loads;
}

double loss_of(const std::vector<double>& loads, const RoutingSums& sums, double factor) {
  std::vector<double> shares = shares_of(loads);
  if (shares.empty() || sums.tokens == 0) return 0;
  double dot = std::inner_product(shares.begin(), shares.end(), sums.probability.begin(), 0.0);
  return factor * static_cast<double>(loads.size()) * dot / sums.tokens;
}

std::vector<double> gradient_of(const std::vector<double>& loads, const RoutingSums& sums,
                                double factor) {
  std::vector<double> gradient = shares_of(loads);
  double experts = static_cast<double>(loads.size());
  for (double& value : gradient) value *= factor * experts / sums.tokens;
  return gradient;
}

// The mean over scopes as a factor; 1.0 for one, to the bit.
double share_of_one(int64_t scopes) {
  return 1.0 / static_cast<double>(scopes);
}

}  // namespace

double paper_loss(const RoutingSums& sums, double factor) {
  return loss_of(sums.single, sums, factor);
}
std::vector<double> paper_loss_gradient(const RoutingSums& sums, double factor) {
  return gradient_of(sums.single, sums, factor);
}
double switch_loss(const RoutingSums& sums, double factor) {
  return loss_of(sums.assigned, sums, factor);
}
std::vector<double> switch_loss_gradient(const RoutingSums& sums, double factor) {
  return gradient_of(sums.assigned, sums, factor);
}

const BalanceLoss& balance_loss_of(std::string_view name) {
  return entry_named("moe.balance.loss", kBalanceLosses, name);
}

BalanceLosses::BalanceLosses(const BalanceConfig& config)
    : loss_(&balance_loss_of(config.loss)),
      coefficient_(loss_->value ? config.coefficient : 0),
      z_coefficient_(config.z_coefficient),
      per_micro_batch_(config.scope == "micro_batch") {
  check(per_micro_batch_ || config.scope == "global_batch",
        "moe.balance.scope is '{}': global_batch or micro_batch", config.scope);
}

BalanceLosses::Values BalanceLosses::values(const RoutingSums& sums, int64_t scopes) const {
  if (sums.tokens == 0) return {};
  double share = share_of_one(scopes);
  return {.balance = coefficient_ > 0 ? loss_->value(sums, share * coefficient_) : 0,
          .z = share * z_coefficient_ * sums.log_sum_exp_squared / sums.tokens};
}

RoutingLossGradient BalanceLosses::gradient(const RoutingSums& sums, int64_t scopes) const {
  if (sums.tokens == 0) return {};
  double share = share_of_one(scopes);
  RoutingLossGradient gradient;
  if (coefficient_ > 0) gradient.probability = loss_->gradient(sums, share * coefficient_);
  gradient.log_sum_exp_squared = share * z_coefficient_ / sums.tokens;
  return gradient;
}

}  // namespace adagate
