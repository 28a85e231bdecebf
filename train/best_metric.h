// The best of a run's evaluations by the metric of its task, which a resumed run goes on from.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "train/metric.h"

namespace adagate {

struct BestMetric {
  MetricKind kind;
  double value = 0;  // finite
  int64_t step = 0;
};

// The better one of `best` and another evaluation's; of equal ones the earlier; a value that isn't
// finite is none.
std::optional<BestMetric> better(const std::optional<BestMetric>& best, const Metric& metric,
                                 int64_t step);

// To and from what a checkpoint keeps beside the tensors; none where there is no sound one.
void write_best(const std::optional<BestMetric>& best, std::map<std::string, std::string>& extra);
std::optional<BestMetric> read_best(const std::map<std::string, std::string>& extra,
                                    const MetricKind& kind);

}  // namespace adagate
