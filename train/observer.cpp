#include "train/observer.h"

namespace adagate {
namespace {

template <class F>
double mean_over_tokens(const RoutingStep& routing, F&& value) {
  double sum = 0, tokens = 0;
  for (int64_t l = 0; l < routing.layers(); ++l) {
    LayerRouting layer = routing.layer(l);
    sum += value(layer);
    tokens += layer.sums.tokens;
  }
  return tokens > 0 ? sum / tokens : 0;
}

}  // namespace

double single_expert_share(const RoutingStep& routing) {
  return mean_over_tokens(
      routing, [](const LayerRouting& layer) { return layer.share_with(1) * layer.sums.tokens; });
}

double experts_per_token(const RoutingStep& routing) {
  return mean_over_tokens(routing, [](const LayerRouting& layer) { return layer.assignments(); });
}

}  // namespace adagate
