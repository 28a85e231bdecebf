// Rows go to their experts and come back: combine(dispatch(x)) = x for identity experts.
#include <numeric>

#include "core/ops/elementwise.h"
#include "moe/dispatcher.h"
#include "parallel/thread_communicator.h"
#include "tests/moe/moe_inputs.h"
#include "tests/support/catch.h"
#include "tests/support/gradient_check.h"

namespace adagate::test {
namespace {

// A plan with weights 1/(number of experts): exact for 1 or 2 experts.
RoutingPlan even_plan(const Selection& s, int64_t experts, DType type) {
  RoutingPlan plan{
      .experts = experts, .selection = s, .weight = Tensor::empty({s.expert.numel()}, type)};
  std::vector<float> weights;
  auto start = ints(s.row_start);
  for (size_t t = 0; t + 1 < start.size(); ++t)
    for (int32_t taken = start[t + 1] - start[t], i = 0; i < taken; ++i)
      weights.push_back(1.0f / static_cast<float>(taken));
  plan.weight.copy_from(Tensor::from(weights, {s.expert.numel()}));
  return plan;
}

}  // namespace

TEST_CASE("sort_by_expert is a stable counting sort", "[moe]") {
  for (int64_t tokens : {0, 1, 33, 5000}) {
    Selection s = random_selection(tokens);
    ExpertOrder order = sort_by_expert(s);
    auto row = ints(order.row), token = ints(order.token), expert = ints(s.expert);
    const auto& offsets = order.offsets.host;
    REQUIRE(order.offsets.device.to_host<int64_t>() == offsets);
    REQUIRE(offsets.front() == 0);
    REQUIRE(offsets.back() == s.expert.numel());
    bool fine = true;
    for (size_t e = 0; e + 1 < offsets.size(); ++e)
      for (int64_t r = offsets[e] + 1; r < offsets[e + 1]; ++r)
        fine = fine && token[static_cast<size_t>(r)] > token[static_cast<size_t>(r) - 1];
    auto start = ints(s.row_start);
    for (int64_t t = 0; t < tokens; ++t)
      for (int32_t i = start[static_cast<size_t>(t)]; i < start[static_cast<size_t>(t) + 1]; ++i) {
        auto r = row[static_cast<size_t>(i)];
        auto e = static_cast<size_t>(expert[static_cast<size_t>(i)]);
        fine = fine && r >= offsets[e] && r < offsets[e + 1] && token[static_cast<size_t>(r)] == t;
      }
    CHECK(fine);
  }
}

TEST_CASE("combine(dispatch(x)) = x for identity experts, forward and backward", "[moe]") {
  constexpr int64_t kExperts = 8;
  for (DType type : {DType::f32, DType::bf16, DType::f64})
    for (int ranks : {1, 2, 4})
      for (int empty : {-1, 0, ranks - 1}) {  // this rank has no tokens
        INFO(name_of(type) << ", " << ranks << " ranks, empty " << empty);
        std::vector<int> good(static_cast<size_t>(ranks), 0);
        std::vector<int64_t> rows(static_cast<size_t>(ranks), 0), taken = rows;
        run_ranks(ranks, [&](std::shared_ptr<Communicator> group) {
          int64_t tokens = group->rank() == empty ? 0 : 31 + 7 * group->rank();
          GateScores scores = random_scores(tokens, kExperts);
          SelectionRule rule{.kind = SelectionRule::Kind::gap, .k_max = 2, .threshold = 0.1};
          RoutingPlan plan = even_plan(select_experts(scores, rule, {}, {}), kExperts,
                                       type == DType::f64 ? DType::f64 : DType::f32);
          Dispatcher dispatcher(group, kExperts);
          Tensor x = random_normal({tokens, 17}, 9).to(type),
                 dy = random_normal({tokens, 17}, 10).to(type);
          x.set_slot(std::make_shared<GradSlot>());
          Tape tape;
          Tensor y;
          auto me = static_cast<size_t>(group->rank());
          {
            Recording on(tape);
            Dispatched d = dispatcher.dispatch(x, plan);
            rows[me] = d.rows.rows();
            taken[me] = plan.rows();
            y = dispatcher.combine(d.rows, d);
          }
          tape.backward(y, dy);
          good[me] = same_bits(x.detach(), y.detach()) &&
                     (tokens == 0 || same_bits(x.slot()->value(), dy));
        });
        CHECK(good == std::vector<int>(static_cast<size_t>(ranks), 1));
        CHECK(std::accumulate(rows.begin(), rows.end(), int64_t{0}) ==
              std::accumulate(taken.begin(), taken.end(), int64_t{0}));
      }
}

TEST_CASE("Dispatched rows are those of the experts of the rank", "[moe]") {
  // Row values name their token and rank; expert e = (token + rank) % 4.
  std::vector<float> rows[2];
  std::vector<int64_t> offsets[2];
  run_ranks(2, [&](std::shared_ptr<Communicator> group) {
    constexpr int64_t kTokens = 6;
    std::vector<int32_t> start{0}, expert;
    std::vector<float> values;
    for (int32_t t = 0; t < kTokens; ++t) {
      start.push_back(t + 1);
      expert.push_back((t + group->rank()) % 4);
      values.push_back(static_cast<float>(10 * group->rank() + t));
    }
    Selection s = make_selection(start, expert, 4);
    Dispatcher dispatcher(group, 4);
    Dispatched d =
        dispatcher.dispatch(Tensor::from(values, {kTokens, 1}), even_plan(s, 4, DType::f32));
    rows[group->rank()] = d.rows.to_floats();
    offsets[group->rank()] = d.offsets.host;
  });
  // Rank 0 has experts 0 and 1, rank 1 experts 2 and 3; inside an expert sources in rank order.
  CHECK(rows[0] == std::vector<float>{0, 4, 13, 1, 5, 10, 14});
  CHECK(offsets[0] == std::vector<int64_t>{0, 3, 7});
  CHECK(rows[1] == std::vector<float>{2, 11, 15, 3, 12});
  CHECK(offsets[1] == std::vector<int64_t>{0, 3, 5});
}

TEST_CASE("A rank whose rows got no gradient joins the exchange with zeros", "[moe]") {
  constexpr int64_t kWidth = 40, kRows[2][2] = {{2, 1}, {3, 2}};  // from each rank to each
  for (int reached : {0, 1}) {  // the one rank whose rows enter its loss
    INFO("rank " << reached);
    std::vector<float> dx[2];
    run_ranks(2, [&](std::shared_ptr<Communicator> group) {
      int me = group->rank();
      std::vector<int64_t> send = {kRows[me][0], kRows[me][1]}, recv = {kRows[0][me], kRows[1][me]};
      Tensor x = random_normal({send[0] + send[1], kWidth}, 1).to(DType::f32);
      Tensor other = Tensor::full({1}, DType::f32, 1);
      x.set_slot(std::make_shared<GradSlot>());
      other.set_slot(std::make_shared<GradSlot>());
      Tape tape;
      Tensor y, aside;
      {
        Recording on(tape);
        y = exchange_rows(x, send, recv, group);
        aside = scale(other, 1);
      }
      {
        // What memory taken without clearing it would hold.
        std::vector<Tensor> freed;
        for (int i = 0; i < 8; ++i) freed.push_back(Tensor::full(y.shape(), DType::f32, 7));
      }
      tape.backward(me == reached ? y : aside, 2.0);
      group->barrier();
      dx[me] = x.slot()->value().to_floats();
    });
    for (int me : {0, 1}) {
      std::vector<float> expected;
      for (int to : {0, 1})
        expected.insert(expected.end(), static_cast<size_t>(kRows[me][to] * kWidth),
                        to == reached ? 2.0f : 0.0f);
      CHECK(dx[me] == expected);
    }
  }
}

}  // namespace adagate::test
