#include "models/parameter_counts.h"

#include <algorithm>

#include "models/decoder.h"

namespace adagate {

ParameterCounts count_parameters(const ModelConfig& model, const MoeConfig& moe,
                                 double experts_per_token) {
  Decoder decoder(model, moe, make_self_mesh());
  int64_t dense = 0, experts = 0;
  decoder.visit_parameters([&](const Parameter& p) {
    (p.spec().group == ParameterGroup::expert ? experts : dense) += p.numel();
  });
  int64_t one = experts / std::max<int64_t>(1, moe.experts);  // in each of the MoE layers
  return {.total = dense + experts,
          .active = dense + static_cast<int64_t>(experts_per_token * static_cast<double>(one)),
          .experts = experts};
}

}  // namespace adagate
