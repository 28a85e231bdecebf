#include "train/metric.h"

#include <fmt/format.h>

#include "core/base/error.h"

namespace adagate {

Metrics metrics_of(std::span<const MetricKind> kinds, std::span<const double> values) {
  check(kinds.size() == values.size(), "{} values for {} metrics", values.size(), kinds.size());
  Metrics metrics;
  for (size_t i = 0; i < kinds.size(); ++i) metrics.push_back({kinds[i], values[i]});
  return metrics;
}

const Metric& metric_named(std::string_view name, const Metrics& metrics) {
  for (const Metric& metric : metrics)
    if (metric.kind.name == name) return metric;
  fail("the evaluation has no metric {}", name);
}

std::string text_of(const Metric& metric, int more) {
  return fmt::format("{} {:.{}f}", metric.kind.name, metric.value, metric.kind.digits + more);
}

}  // namespace adagate
