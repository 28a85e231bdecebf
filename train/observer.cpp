#include "train/observer.h"

#include <algorithm>
#include <numeric>

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

struct RankRows {
  double mean = 0, most = 0;

  void add(const LayerRouting& layer) {
    const std::vector<double>& rows = layer.rank_rows;
    if (rows.empty()) return;
    most += *std::max_element(rows.begin(), rows.end());
    mean += std::accumulate(rows.begin(), rows.end(), 0.0) / static_cast<double>(rows.size());
  }
  double imbalance() const { return mean > 0 ? most / mean : 1; }
};

}  // namespace

double rank_imbalance(const LayerRouting& layer) {
  RankRows rows;
  rows.add(layer);
  return rows.imbalance();
}

double rank_imbalance(const RoutingStep& routing) {
  RankRows rows;
  for (int64_t l = 0; l < routing.layers(); ++l) rows.add(routing.layer(l));
  return rows.imbalance();
}

double single_expert_share(const RoutingStep& routing) {
  return mean_over_tokens(
      routing, [](const LayerRouting& layer) { return layer.share_with(1) * layer.sums.tokens; });
}

double experts_per_token(const RoutingStep& routing) {
  return mean_over_tokens(routing, [](const LayerRouting& layer) { return layer.assignments(); });
}

}  // namespace adagate
