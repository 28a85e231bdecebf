// Figures that an evaluation comes to, by name. A task lists which.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace adagate {

enum class Better { lower, higher };

struct MetricKind {
  std::string_view name;
  std::string_view help = {};
  Better better = Better::lower;
  int digits = 4;  // behind the point, in a run's lines; `adagate evaluate` prints one more
};

// What every task measures: the mean of its training loss per target.
constexpr std::string_view kLossMetric = "loss";

struct Metric {
  MetricKind kind;
  double value = 0;
};

// In the order of the task's list.
using Metrics = std::vector<Metric>;

// As many values as kinds.
Metrics metrics_of(std::span<const MetricKind> kinds, std::span<const double> values);

// Throws Error when there is none of that name.
const Metric& metric_named(std::string_view name, const Metrics& metrics);

// "perplexity 12.34", with `more` digits than a run's lines have.
std::string text_of(const Metric& metric, int more = 0);

}  // namespace adagate
