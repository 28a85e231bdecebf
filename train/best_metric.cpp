#include "train/best_metric.h"

#include <cmath>
#include <fmt/format.h>
#include <sstream>

namespace adagate {
namespace {

constexpr const char* kKey = "best_validation";  // "VALUE STEP"

bool is_better(double value, double than, Better better) {
  return better == Better::lower ? value < than : value > than;
}

}  // namespace

std::optional<BestMetric> better(const std::optional<BestMetric>& best, const Metric& metric,
                                 int64_t step) {
  if (!std::isfinite(metric.value)) return best;
  if (best && !is_better(metric.value, best->value, metric.kind.better)) return best;
  return BestMetric{.kind = metric.kind, .value = metric.value, .step = step};
}

void write_best(const std::optional<BestMetric>& best, std::map<std::string, std::string>& extra) {
  if (best) extra[kKey] = fmt::format("{:.17g} {}", best->value, best->step);
}

std::optional<BestMetric> read_best(const std::map<std::string, std::string>& extra,
                                    const MetricKind& kind) {
  auto it = extra.find(kKey);
  if (it == extra.end()) return std::nullopt;
  std::istringstream text(it->second);
  BestMetric best{.kind = kind};
  bool sound = text >> best.value >> best.step && std::isfinite(best.value);
  return sound ? std::optional(best) : std::nullopt;
}

}  // namespace adagate
