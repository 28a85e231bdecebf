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

// Returns the outcome on one rank, for a test to ask what else must hold.
Outcome require_same_everywhere(const Scenario& s, double tolerance = 1e-9,
                                const std::vector<Layout>& layouts = all_layouts()) {
  Outcome reference = train_on_threads(s, {});
  REQUIRE(reference.figures.at("gradient norm")[0] > 0);
  REQUIRE(reference.figures.at("loss").back() != reference.figures.at("loss").front());
  for (const Layout& l : layouts) {
    INFO(s.name << " " << s.policy << "/" << s.balance << " ranks " << l.ranks << " expert "
                << l.expert_parallel << " accumulation " << l.accumulation << " checkpointing "
                << l.recompute_blocks);
    Distance worst = distance(reference, train_on_threads(s, l));
    INFO("worst: " << worst.of);
    REQUIRE(worst.value < tolerance);
  }
  return reference;
}

// Where all of them would take long: each value of each kind at least once.
const std::vector<Layout> kSomeLayouts = {{1, 1, 4, true},  {2, 1, 2, false}, {2, 2, 1, true},
                                          {4, 1, 1, false}, {4, 2, 2, true},  {4, 4, 4, false}};

}  // namespace

TEST_CASE("layouts: padded samples, every layout trains alike") {
  Outcome reference = require_same_everywhere(kPadded);
  // Both losses act, both numbers of experts occur.
  CHECK(reference.figures.at("balance loss")[0] > 0);
  CHECK(reference.figures.at("z-loss")[0] > 0);
  CHECK(reference.figures.at("single-expert share")[0] > 0);
  CHECK(reference.figures.at("single-expert share")[0] < 1);
  double squares = 0;
  for (auto& [name, values] : reference.parameters)
    for (double value : values) squares += value * value;
  CHECK(reference.figures.at("parameter norm").back() == Approx(std::sqrt(squares)));
}

TEST_CASE("layouts: the modern form: grouped-query, rotary, swiglu, untied") {
  require_same_everywhere(kModern, 1e-9, kSomeLayouts);
}

TEST_CASE("layouts: in f32 to 1e-5") {
  // AdamW divides by the gradient's own size: a single element whose gradient is as small as
  // round-off can take another step. Figures and the norm of all parameters don't notice.
  for (bool modern : {false, true}) {
    Scenario s{.dtype = DType::f32, .compute = DType::f32, .modern = modern};
    Outcome reference = train_on_threads(s, {});
    for (const Layout& l : kSomeLayouts) {
      INFO("modern " << modern << " ranks " << l.ranks << " expert " << l.expert_parallel);
      Outcome here = train_on_threads(s, l);
      Distance figures = distance(reference.figures, here.figures);
      INFO("worst: " << figures.of);
      CHECK(figures.value < 1e-5);
      CHECK(norm_distance(reference.parameters, here.parameters) < 1e-5);
    }
  }
  // With an epsilon above the round-off every element agrees.
  require_same_everywhere({.dtype = DType::f32, .compute = DType::f32, .epsilon = 1e-3}, 1e-5);
}

TEST_CASE("layouts: fewer samples than ranks, so that some ranks are empty") {
  require_same_everywhere(kFew);
  CHECK(train_on_threads(kFew, {4, 2}).ranks_empty == kFew.steps);
}

TEST_CASE("layouts: every policy and balance loss") {
  for (auto [policy, balance] : {std::pair{"adaptive", "switch"},
                                 {"adaptive", "none"},
                                 {"top1", "paper"},
                                 {"top2", "switch"},
                                 {"topk", "switch"},
                                 {"random_one_or_two", "paper"}})
    require_same_everywhere({.batch = 5, .policy = policy, .balance = balance}, 1e-9, kSomeLayouts);
  require_same_everywhere({.batch = 5, .z_coefficient = 0}, 1e-9, kSomeLayouts);
}

TEST_CASE("layouts: balance losses of each micro-batch don't depend on the ranks") {
  for (const char* balance : {"paper", "switch"})
    for (int64_t accumulation : {1, 2}) {
      Scenario s{.batch = 8, .balance = balance, .scope = "micro_batch"};
      Outcome reference = train_on_threads(s, {1, 1, accumulation});
      for (auto [ranks, expert] : {std::pair{2, 2}, {4, 1}, {4, 4}}) {
        INFO(balance << " ranks " << ranks << " expert " << expert);
        Outcome here = train_on_threads(s, {ranks, expert, accumulation, ranks == 4});
        REQUIRE(distance(reference, here).value < 1e-9);
      }
    }
}

TEST_CASE("layouts: all tokens on one expert, the others get none") {
  Outcome reference = require_same_everywhere(kAllOnOne);
  const auto& load = reference.figures.at("load");  // 4 experts per step and layer
  for (size_t i = 0; i < load.size(); ++i) REQUIRE((load[i] > 0) == (i % 4 == 2));
}

TEST_CASE("layouts: all targets of some ranks masked") {
  require_same_everywhere(kMasked);
  CHECK(train_on_threads(kMasked, {2, 2}).ranks_masked > 0);
  CHECK(train_on_threads(kMasked, {4, 4}).ranks_masked > kMasked.steps);
}

TEST_CASE("layouts: dropout and random routing draw by token, not by rank") {
  require_same_everywhere(kDropout, 1e-9, kSomeLayouts);
  require_same_everywhere(kModernDropout, 1e-9, kSomeLayouts);
  // Dropout acts: without it the training is another.
  Scenario without = kDropout;
  without.dropout = 0;
  CHECK(distance(train_on_threads(kDropout, {}), train_on_threads(without, {})).value > 1e-3);
}
