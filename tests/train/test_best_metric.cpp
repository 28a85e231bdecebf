// The best of a run's evaluations, by a metric of which less or more is better.
#include <cmath>

#include "tests/support/catch.h"
#include "train/best_metric.h"

using namespace adagate;

namespace {

constexpr MetricKind kLower{.name = "loss", .better = Better::lower};
constexpr MetricKind kHigher{.name = "accuracy", .better = Better::higher};

// Of values at steps 1, 2, ..
std::optional<BestMetric> best_of(const MetricKind& kind, const std::vector<double>& values) {
  std::optional<BestMetric> best;
  for (size_t i = 0; i < values.size(); ++i)
    best = better(best, {kind, values[i]}, static_cast<int64_t>(i) + 1);
  return best;
}

}  // namespace

TEST_CASE("best: the lowest or the highest, the first of equal ones, and none that isn't finite") {
  CHECK_FALSE(best_of(kLower, {}));
  CHECK_FALSE(best_of(kLower, {std::nan("")}));
  CHECK_FALSE(best_of(kHigher, {INFINITY, std::nan("")}));
  const std::vector<double> values = {std::nan(""), 0.5, 0.25, 0.75, INFINITY, 0.25, 0.75};
  auto lowest = best_of(kLower, values), highest = best_of(kHigher, values);
  CHECK(lowest.value().value == 0.25);
  CHECK(lowest.value().step == 3);
  CHECK(highest.value().value == 0.75);
  CHECK(highest.value().step == 4);
  CHECK(highest.value().kind.name == "accuracy");
}

TEST_CASE("best: kept by checkpoints to the bit") {
  std::map<std::string, std::string> extra;
  CHECK_FALSE(read_best(extra, kLower));
  write_best(std::nullopt, extra);
  CHECK(extra.empty());
  write_best(best_of(kLower, {2, 1.0 / 3}), extra);
  CHECK(extra.at("best_validation") == "0.33333333333333331 2");
  auto read = read_best(extra, kLower);
  REQUIRE(read);
  CHECK(read->value == 1.0 / 3);
  CHECK(read->step == 2);
  CHECK(read->kind.name == "loss");
  for (auto& [key, value] : extra) value = "nonsense";
  CHECK_FALSE(read_best(extra, kLower));
}
