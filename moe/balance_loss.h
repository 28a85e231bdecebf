// The auxiliary losses of a run: which of core/ops/balance_losses.h, how large, over what scope.
#pragma once

#include <string_view>

#include "core/ops/balance_losses.h"

namespace adagate {

struct BalanceConfig;

// Throws Error on an unknown name, listing the known ones.
const BalanceLoss& balance_loss_of(std::string_view name);

class BalanceLosses {
 public:
  // `config` with a loss of its own, not `auto`: MoeConfig::resolved_balance(). Throws Error on
  // unknown words.
  explicit BalanceLosses(const BalanceConfig& config);

  bool active() const { return coefficient_ > 0 || z_coefficient_ > 0; }
  // Each micro-batch is a scope of its own, not the whole step.
  bool per_micro_batch() const { return per_micro_batch_; }

  // One layer and scope of `scopes`: their losses are averaged.
  struct Values {
    double balance = 0, z = 0;
  };
  Values values(const RoutingSums& sums, int64_t scopes) const;
  // Of all layers, sums [layers, routing_sums_size(experts)], on their device: see
  // routing_loss_gradients().
  Tensor gradients(const Tensor& sums, int64_t experts, int64_t scopes) const;

 private:
  const BalanceLoss* loss_;
  double coefficient_, z_coefficient_;
  bool per_micro_batch_;
};

}  // namespace adagate
