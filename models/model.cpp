#include "models/model.h"

namespace adagate {

RoutingStep routing_step_of(const Model& model) {
  const MoeConfig& moe = model.moe_config();
  return RoutingStep(model.moe_layers(), moe.experts, moe.resolved_balance(), model.moe_blocks());
}

}  // namespace adagate
