#include "moe/balance_loss.h"

#include "core/base/named.h"
#include "moe/moe_config.h"

namespace adagate {
namespace {

// The mean over scopes as a factor; 1.0 for one, to the bit.
double share_of_one(int64_t scopes) {
  return 1.0 / static_cast<double>(scopes);
}

}  // namespace

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

Tensor BalanceLosses::gradients(const Tensor& sums, int64_t experts, int64_t scopes) const {
  double share = share_of_one(scopes);
  return routing_loss_gradients(sums, experts, *loss_, share * coefficient_,
                                share * z_coefficient_);
}

}  // namespace adagate
