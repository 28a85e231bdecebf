#include "models/parameter_counts.h"

#include <algorithm>

namespace adagate {

ParameterCounts count_parameters(const Model& model, double experts_per_token) {
  int64_t dense = 0, experts = 0;
  model.visit_parameters([&](const Parameter& p) {
    (p.spec().group == ParameterGroup::expert ? experts : dense) += p.numel();
  });
  // In each of the MoE layers.
  int64_t one = experts / std::max<int64_t>(1, model.moe_config().experts);
  return {.total = dense + experts,
          .active = dense + static_cast<int64_t>(experts_per_token * static_cast<double>(one)),
          .experts = experts};
}

}  // namespace adagate
