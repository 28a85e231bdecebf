// The routing report's table and sums over several steps, against figures computed by hand.
#include <cmath>

#include "moe/routing_report.h"
#include "tests/support/catch.h"
#include "tests/support/packed_sums.h"

namespace adagate::test {
namespace {

constexpr double kMiB = 1 << 20;

// What one layer counts in a step. `evenness` is the entropy of each token's probabilities over the
// largest there is.
struct Counted {
  std::vector<double> by_count, assigned;
  double evenness = 0, mib = 0;
};

RoutingSums sums_of(const Counted& c) {
  RoutingSums sums{.single = std::vector<double>(c.assigned.size()),
                   .assigned = c.assigned,
                   .probability = std::vector<double>(c.assigned.size()),
                   .by_count = c.by_count};
  for (double tokens : c.by_count) sums.tokens += tokens;
  sums.single[0] = c.by_count[1];
  // Even probabilities.
  for (double& p : sums.probability) p = sums.tokens / static_cast<double>(c.assigned.size());
  sums.entropy = sums.tokens * c.evenness * std::log(static_cast<double>(c.assigned.size()));
  sums.log_sum_exp_squared = 4 * sums.tokens;
  return sums;
}

// A finished step of these layers.
RoutingStep step_of(const std::vector<Counted>& layers) {
  RoutingStep step(static_cast<int64_t>(layers.size()),
                   static_cast<int64_t>(layers[0].assigned.size()),
                   {.loss = "paper", .coefficient = 0.5, .z_coefficient = 0.25},
                   layers.size() == 2 ? std::vector<int64_t>{1, 4} : std::vector<int64_t>{});
  step.begin(1);
  for (size_t l = 0; l < layers.size(); ++l) {
    step.ledger().add(
        static_cast<int64_t>(l),
        test::packed_sums(sums_of(layers[l]), static_cast<int64_t>(layers[l].assigned.size())));
    step.ledger().add(static_cast<int64_t>(l),
                      {.rows = 6,
                       .rows_sent = 3,
                       .bytes_sent = static_cast<int64_t>(layers[l].mib * kMiB),
                       .flops = 1e6});
  }
  step.end(*make_self_communicator());
  return step;
}

// Three steps of two layers of three experts. The first layer has 50 tokens with 41 + 2 * 8 + 3 =
// 60 assignments, so 20 would be an even load; the second 10 with 18, and none in the first step.
RoutingReport three_steps() {
  RoutingReport report;
  report.add(step_of({{{0, 6, 3, 1}, {9, 4, 2}, 0.5, 3.0}, {{0, 0, 0, 0}, {0, 0, 0}}}));
  report.add(step_of({{{0, 25, 5, 0}, {6, 20, 9}, 0.25, 1.0}, {{0, 0, 8, 0}, {8, 8, 0}, 1.0, 0}}));
  report.add(step_of({{{0, 10, 0, 0}, {5, 4, 1}, 0.5, 3.5}, {{0, 2, 0, 0}, {2, 0, 0}, 1.0, 0}}));
  return report;
}

}  // namespace

TEST_CASE("The routing report's table is that of all its steps", "[moe]") {
  CHECK(three_steps().table() ==
        "MoE block    1 expert   2 experts   3 experts        load min / max       entropy, nats"
        "     sent/step\n"
        "        1      82.0 %      16.0 %       2.0 %         0.60 /   1.40      0.385 of 1.099"
        "      2.50 MiB\n"
        "        4      20.0 %      80.0 %       0.0 %         0.00 /   1.67      1.099 of 1.099"
        "      0.00 MiB\n");
}

TEST_CASE("The routing report's table of one expert, and of no tokens", "[moe]") {
  RoutingReport one;
  one.add(step_of({{{0, 5}, {5}, 0, 0}}));
  CHECK(one.table() ==
        "MoE block    1 expert   2 experts        load min / max       entropy, nats"
        "     sent/step\n"
        "        0     100.0 %       0.0 %         1.00 /   1.00      0.000 of 0.000"
        "      0.00 MiB\n");
  RoutingReport none;
  CHECK(none.table().empty());
  none.add(step_of({{{0, 0, 0}, {0, 0}}}));
  CHECK(none.table() ==
        "MoE block    1 expert   2 experts        load min / max       entropy, nats"
        "     sent/step\n"
        "        0       0.0 %       0.0 %         0.00 /   0.00      0.000 of 0.693"
        "      0.00 MiB\n");
}

TEST_CASE("The routing report's layers are sums over the steps", "[moe]") {
  RoutingReport report = three_steps();
  CHECK(report.steps() == 3);
  REQUIRE(report.layers().size() == 2);
  const LayerRouting& first = report.layers()[0];
  CHECK(first.sums.single == std::vector<double>{41, 0, 0});
  CHECK(first.sums.assigned == std::vector<double>{20, 28, 12});
  CHECK(first.sums.by_count == std::vector<double>{0, 41, 8, 1});
  for (double p : first.sums.probability) CHECK(p == Approx(50.0 / 3));
  CHECK(first.sums.tokens == 50);
  CHECK(first.mean_entropy() == Approx(0.35 * std::log(3.0)));
  CHECK(first.sums.log_sum_exp_squared == 200);
  CHECK(first.rows_sent == 9);
  CHECK(first.rank_rows == std::vector<double>{18});
  CHECK(first.block == 1);
  CHECK(first.bytes_sent == 7.5 * kMiB);
  CHECK(first.flops == 3e6);
  // Each step's probabilities are even, so its balance loss is the coefficient; lse is 2.
  CHECK(first.balance_loss == Approx(3 * 0.5));
  CHECK(first.z_loss == Approx(3 * 0.25 * 4));
  // Single-expert tokens are in the last step alone.
  CHECK(report.layers()[1].balance_loss == Approx(0.5));
  CHECK(report.layers()[1].sums.tokens == 10);

  report.clear();
  CHECK(report.steps() == 0);
  CHECK(report.layers().empty());
  report.add(step_of({{{0, 10, 0, 0}, {5, 4, 1}, 0.5, 3.5}}));
  CHECK_THAT(report.table(), Catch::Contains("3.50 MiB"));
}

TEST_CASE("No share of the tokens takes more experts than there are", "[moe]") {
  LayerRouting layer;
  layer.sums.by_count = {1, 3, 4, 100};
  layer.sums.by_count.pop_back();
  layer.sums.tokens = 8;
  CHECK(layer.share_with(1) == 0.375);
  CHECK(layer.share_with(2) == 0.5);
  CHECK(layer.share_with(3) == 0);
  CHECK(layer.share_with(4) == 0);
}

}  // namespace adagate::test
