#include "moe/routing_report.h"

#include <algorithm>
#include <cmath>

#include "core/base/counted.h"

namespace adagate {
namespace {

void add_to(std::vector<double>& sums, const std::vector<double>& values) {
  sums.resize(std::max(sums.size(), values.size()));
  for (size_t i = 0; i < values.size(); ++i) sums[i] += values[i];
}

void add_to(LayerRouting& sum, const LayerRouting& layer) {
  add_to(sum.sums.single, layer.sums.single);
  add_to(sum.sums.assigned, layer.sums.assigned);
  add_to(sum.sums.probability, layer.sums.probability);
  add_to(sum.sums.by_count, layer.sums.by_count);
  add_to(sum.sums.gap, layer.sums.gap);
  add_to(sum.rank_rows, layer.rank_rows);
  sum.sums.tokens += layer.sums.tokens;
  sum.sums.entropy += layer.sums.entropy;
  sum.sums.log_sum_exp_squared += layer.sums.log_sum_exp_squared;
  sum.rows_sent += layer.rows_sent;
  sum.bytes_sent += layer.bytes_sent;
  sum.flops += layer.flops;
  sum.balance_loss += layer.balance_loss;
  sum.z_loss += layer.z_loss;
}

// The largest number of experts any token took, at least 2 so that the usual columns are there.
int64_t most_experts(const std::vector<LayerRouting>& layers) {
  int64_t most = 2;
  for (const LayerRouting& layer : layers)
    for (int64_t k = 0; k < static_cast<int64_t>(layer.sums.by_count.size()); ++k)
      if (layer.sums.by_count[static_cast<size_t>(k)] > 0) most = std::max(most, k);
  return most;
}

}  // namespace

void RoutingReport::add(const RoutingStep& step) {
  for (int64_t l = 0; l < step.layers(); ++l) {
    if (l < static_cast<int64_t>(layers_.size())) {
      add_to(layers_[static_cast<size_t>(l)], step.layer(l));
    } else {
      layers_.push_back(step.layer(l));
    }
  }
  ++steps_;
}

std::string RoutingReport::table() const {
  if (layers_.empty()) return "";
  int64_t most = most_experts(layers_);
  std::string text = fmt::format("{:>9}", "MoE block");
  for (int64_t k = 1; k <= most; ++k) text += fmt::format("{:>12}", counted(k, "expert"));
  text += fmt::format("{:>22}{:>20}{:>14}\n", "load min / max", "entropy, nats", "sent/step");
  for (size_t l = 0; l < layers_.size(); ++l) {
    const LayerRouting& layer = layers_[l];
    const std::vector<double>& load = layer.sums.assigned;
    double even = layer.assignments() / static_cast<double>(load.size());
    double least = *std::min_element(load.begin(), load.end());
    double largest = *std::max_element(load.begin(), load.end());
    double scale = even > 0 ? 1 / even : 0;
    double largest_entropy = std::log(static_cast<double>(load.size()));
    text += fmt::format("{:>9}", layer.block);
    for (int64_t k = 1; k <= most; ++k)
      text += fmt::format("{:>10.1f} %", 100 * layer.share_with(k));
    text += fmt::format("{:>13.2f} / {:>6.2f}{:>11.3f} of {:.3f}{:>10.2f} MiB\n", least * scale,
                        largest * scale, layer.mean_entropy(), largest_entropy,
                        layer.bytes_sent / static_cast<double>(steps_) / (1 << 20));
  }
  return text;
}

}  // namespace adagate
