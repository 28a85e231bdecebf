// Which loads of the experts are worth a warning, and when it is taken back.
#include "moe/expert_watch.h"
#include "tests/support/catch.h"
#include "tests/support/packed_sums.h"

namespace adagate::test {
namespace {

using Kind = ExpertEvent::Kind;

// A finished step of one layer, in block 3, in which 100 tokens made these assignments.
RoutingStep step_of(const std::vector<double>& assigned, double tokens = 100) {
  auto experts = static_cast<int64_t>(assigned.size());
  RoutingStep step(1, experts, {.loss = "none"}, {3});
  step.begin(1);
  RoutingSums sums{.single = std::vector<double>(assigned.size()),
                   .assigned = assigned,
                   .probability = std::vector<double>(assigned.size()),
                   .by_count = std::vector<double>(assigned.size() + 1),
                   .tokens = tokens};
  step.ledger().add(0, test::packed_sums(sums, experts));
  step.end(*make_self_communicator());
  return step;
}

std::vector<ExpertEvent> add(ExpertWatch& watch, int steps, const std::vector<double>& assigned,
                             double tokens = 100) {
  std::vector<ExpertEvent> all;
  RoutingStep step = step_of(assigned, tokens);
  for (int i = 0; i < steps; ++i)
    for (ExpertEvent& event : watch.add(step)) all.push_back(event);
  return all;
}

}  // namespace

TEST_CASE("A starved expert is told of once, and once when it works again", "[moe]") {
  ExpertWatch watch;
  CHECK(add(watch, 99, {40, 0, 60, 0}).empty());
  CHECK(watch.starved().empty());
  auto events = add(watch, 1, {40, 0, 60, 0});
  REQUIRE(events.size() == 1);
  CHECK(events[0].kind == Kind::starved);
  CHECK(events[0].block == 3);
  CHECK(events[0].experts == std::vector<int64_t>{1, 3});
  CHECK(events[0].steps == 100);
  CHECK(events[0].assigned == 0);
  CHECK(events[0].tokens == 10000);
  CHECK(events[0].even_load == 2500);
  CHECK_THAT(describe(events[0]),
             Catch::Contains("MoE block 3: experts 1, 3 got 0 of 10000 tokens in 100 steps") &&
                 Catch::Contains("moe.balance.coefficient"));
  CHECK(watch.starved() == "block 3: 1, 3");
  CHECK(add(watch, 300, {40, 0, 60, 0}).empty());  // known
  CHECK(add(watch, 100, {40, 2, 58, 0}).empty());  // 8 % of an even load: not yet well
  events = add(watch, 100, {40, 3, 57, 0});
  REQUIRE(events.size() == 1);
  CHECK(events[0].kind == Kind::recovered);
  CHECK(events[0].experts == std::vector<int64_t>{1});
  CHECK(watch.starved() == "block 3: 3");
  CHECK(add(watch, 100, {40, 0, 60, 0}).size() == 1);  // another episode
}

TEST_CASE("Some tokens are no starvation, and few tokens prove none", "[moe]") {
  ExpertWatch watch;
  CHECK(add(watch, 300, {40, 0.3, 59.7, 1}).empty());
  ExpertWatch few;  // 1.25 for each expert and step
  std::vector<double> load{3, 2, 0, 0, 0, 0, 0, 5};
  CHECK(add(few, 799, load, 10).empty());
  CHECK(add(few, 1, load, 10).size() == 1);
}

TEST_CASE("An expert that takes nearly all tokens is told of", "[moe]") {
  ExpertWatch watch;
  auto events = add(watch, 100, {2, 96, 2});
  REQUIRE(events.size() == 1);
  CHECK(events[0].kind == Kind::collapsed);
  CHECK(events[0].experts == std::vector<int64_t>{1});
  CHECK_THAT(describe(events[0]), Catch::Contains("expert 1 took 9600 of 10000 tokens"));
  CHECK(add(watch, 200, {2, 96, 2}).empty());
  events = add(watch, 100, {10, 80, 10});
  REQUIRE(events.size() == 1);
  CHECK(events[0].kind == Kind::spread);
  // Top-2 of two experts: each takes all by construction.
  ExpertWatch both;
  CHECK(add(both, 200, {100, 100}).empty());
  ExpertWatch one;
  CHECK(add(one, 200, {100}).empty());
}

}  // namespace adagate::test
