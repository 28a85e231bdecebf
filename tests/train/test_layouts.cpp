// One global batch gives the same training on every layout: ranks, expert parallelism,
// accumulation, activation checkpointing.
#include "tests/support/catch.h"
#include "tests/train/tiny_run.h"

using namespace adagate;
using namespace adagate::tiny;

namespace {

std::vector<Layout> all_layouts() {
  std::vector<Layout> layouts;
  for (auto [ranks, expert] : {std::pair{1, 1}, {2, 1}, {2, 2}, {4, 1}, {4, 2}, {4, 4}})
    for (int64_t accumulation : {1, 2, 4})
      for (bool checkpointing : {false, true})
        layouts.push_back({ranks, expert, accumulation, checkpointing});
  return layouts;
}

void require_same_everywhere(const Scenario& s, double tolerance) {
  Outcome reference = train_on_threads(s, {});
  REQUIRE(reference.norms[0] > 0);
  REQUIRE(reference.losses.back() != reference.losses.front());
  for (const Layout& l : all_layouts()) {
    INFO(s.name << " " << s.policy << "/" << s.balance << " ranks " << l.ranks << " expert "
                << l.expert_parallel << " accumulation " << l.accumulation << " checkpointing "
                << l.checkpoint_blocks);
    REQUIRE(distance(reference, train_on_threads(s, l)) < tolerance);
  }
}

}  // namespace

TEST_CASE("layouts: padded samples, every layout trains alike (f64)") {
  require_same_everywhere({}, 1e-9);
}

TEST_CASE("layouts: in f32 to 1e-5") {
  // Biases of keys have a gradient of zero but for round-off, which AdamW would blow up to full
  // steps of either sign; an epsilon above the round-off keeps them where they are.
  require_same_everywhere({.dtype = DType::f32, .compute = DType::f32, .epsilon = 1e-3}, 1e-5);
}

TEST_CASE("layouts: fewer samples than ranks, so that some ranks are empty") {
  require_same_everywhere({.name = "few", .batch = 3}, 1e-9);
}

TEST_CASE("layouts: every policy and balance loss") {
  for (const char* policy : {"top1", "top2", "random_one_or_two"})
    require_same_everywhere({.batch = 5, .steps = 2, .policy = policy}, 1e-9);
  require_same_everywhere({.steps = 2, .balance = "switch"}, 1e-9);
}

TEST_CASE("layouts: all tokens on one expert, the others get none") {
  require_same_everywhere({.steps = 2, .policy = "top1", .all_on_one = true}, 1e-9);
}

TEST_CASE("layouts: all targets of some ranks masked") {
  require_same_everywhere({.steps = 2, .masked_rows = true}, 1e-9);
}

TEST_CASE("layouts: dropout draws by token, not by rank") {
  require_same_everywhere({.steps = 2, .dropout = 0.2}, 1e-9);
}
