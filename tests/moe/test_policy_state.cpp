// Policies with a state: a bias sways the choice and nothing else, a step's end reaches the policy
// with the sums of all ranks, and with both a policy can even the experts' loads without a loss.
#include <algorithm>
#include <mutex>

#include "core/autograd/tape.h"
#include "core/nn/parameter_store.h"
#include "moe/moe_layer.h"
#include "moe/routing_step.h"
#include "parallel/thread_communicator.h"
#include "tests/moe/moe_inputs.h"
#include "tests/support/catch.h"
#include "tests/support/steered_policy.h"

namespace adagate::test {
namespace {

constexpr SelectionRule kOne{.kind = SelectionRule::Kind::fixed, .k_max = 1};

// Two tokens whose most probable experts are 0, 1, 2 and 2, 0, 1.
GateScores two_tokens(DType type = DType::f32) {
  Tensor p = Tensor::from(std::vector<float>{0.5f, 0.25f, 0.25f, 0.25f, 0.125f, 0.625f}, {2, 3});
  return {p.to(type), Tensor::zeros({2}, type), Tensor::zeros({2}, type)};
}

Tensor bias_of(const std::vector<float>& bias) {
  return Tensor::from(bias, {static_cast<int64_t>(bias.size())});
}

std::vector<int32_t> chosen(const SelectionRule& rule, const std::vector<float>& bias,
                            DType type = DType::f32) {
  return ints(select_experts(two_tokens(type), rule, {}, {}, bias_of(bias)).expert);
}

// A layer whose tokens crowd on expert 0, steered or not, over several steps.
struct Steered {
  std::vector<double> first, last;  // [experts] loads of the first and the last step
};

Steered steer(double rate, int ranks, int micro_batches, int steps) {
  constexpr int64_t kTokens = 240, kWidth = 8, kExperts = 4;
  Tensor x = random_normal({kTokens, kWidth}, 1).to(DType::f32);
  for (int64_t t = 0; t < kTokens; ++t) x.data<float>()[t * kWidth] = 1;
  MoeLayerConfig config{.width = kWidth, .hidden = 4, .initial_stddev = 0.2};
  config.moe.experts = kExperts;
  config.make_policy = [rate](const GateConfig&, int64_t experts) {
    return std::make_unique<SteeredPolicy>(kOne, experts, rate);
  };
  Steered result;
  run_ranks(ranks, [&](std::shared_ptr<Communicator> world) {
    NoRecording off;
    Mesh mesh = make_mesh(std::move(world), ranks > 1 ? 2 : 1);
    MoeLayer layer(config, mesh);
    ParameterStore store(layer, {});
    store.initialize(3);
    store.find("gate.weight")->master().data<float>()[0] = 1.5f;  // everybody likes expert 0
    RoutingStep step(1, kExperts, {.loss = "none"});
    int64_t piece = kTokens / ranks / micro_batches;
    for (int i = 0; i < steps; ++i) {
      step.begin(micro_batches);
      for (int64_t m = 0; m < micro_batches; ++m) {
        int64_t begin = (m * ranks + mesh.world->rank()) * piece;
        step.begin_micro_batch(m);
        layer.forward(x.slice(begin, begin + piece), {.training = true, .routing = &step},
                      padded_rows(1, piece));
      }
      step.end(*mesh.world);
      layer.end_step(step.layer(0).sums);
      if (mesh.world->rank() > 0) continue;
      result.last = step.layer(0).sums.assigned;
      if (i == 0) result.first = result.last;
    }
  });
  return result;
}

double largest_over_even(const std::vector<double>& loads) {
  double sum = std::accumulate(loads.begin(), loads.end(), 0.0);
  return *std::max_element(loads.begin(), loads.end()) * static_cast<double>(loads.size()) / sum;
}

}  // namespace

TEST_CASE("a bias sways the choice", "[moe]") {
  for (DType type : {DType::f32, DType::f64}) {
    CHECK(chosen(kOne, {0, 0, 0}, type) == std::vector<int32_t>{0, 2});
    CHECK(chosen(kOne, {0, 0.25f, 0}, type) == std::vector<int32_t>{0, 2});  // the lower wins a tie
    CHECK(chosen(kOne, {0, 0.3f, 0}, type) == std::vector<int32_t>{1, 2});
    CHECK(chosen(kOne, {0, 0, -0.5f}, type) == std::vector<int32_t>{0, 0});
  }
  // Sorted by score; the gap rule looks at scores too.
  SelectionRule two{.kind = SelectionRule::Kind::fixed, .k_max = 2};
  CHECK(chosen(two, {0, 0.3f, 0}) == std::vector<int32_t>{1, 0, 2, 1});
  SelectionRule gap{.kind = SelectionRule::Kind::gap, .k_max = 2, .threshold = 0.125};
  CHECK(chosen(gap, {0, 0, 0}) == std::vector<int32_t>{0, 2});
  CHECK(chosen(gap, {0, 0.125f, 0}) == std::vector<int32_t>{0, 1, 2});
  CHECK_THROWS_WITH(chosen(kOne, {0, 0}), "routing: a bias of 2 scores for 3 experts");
}

TEST_CASE("a bias of zeros chooses as none, in any number of tokens", "[moe]") {
  SelectionRule gap{.kind = SelectionRule::Kind::gap, .k_max = 3, .threshold = 0.1};
  for (int64_t tokens : {0, 1, 33, 1000}) {
    GateScores scores = random_scores(tokens, 6);
    Tensor mask = padded_mask(tokens);
    Selection none = select_experts(scores, gap, mask, {});
    CHECK(same(none, select_experts(scores, gap, mask, {}, Tensor::zeros({6}, DType::f32))));
    Tensor last = bias_of({0, 0, 0, 0, 0, 2});  // above every probability
    Selection swayed = select_experts(scores, gap, mask, {}, last);
    for (int64_t t = 0; t < tokens; ++t) {
      auto mine = experts_of(swayed, t);
      REQUIRE(mine == (mask.data<uint8_t>()[t] ? std::vector<int32_t>{5} : std::vector<int32_t>{}));
    }
  }
}

TEST_CASE("outputs are weighed by the probabilities, whatever the bias", "[moe]") {
  GateScores scores = two_tokens();
  Selection s = select_experts(scores, kOne, {}, {}, bias_of({0, 1, 0}));
  REQUIRE(ints(s.expert) == std::vector<int32_t>{1, 1});
  Tensor x = Tensor::zeros({2, 4}, DType::f32), w = Tensor::zeros({4, 3}, DType::f32);
  CHECK(routing_weights(x, w, scores, s, false, {}, nullptr).to_floats() ==
        std::vector<float>{0.25f, 0.125f});
}

TEST_CASE("a policy steers the loads by a bias, alike on any number of ranks", "[moe]") {
  Steered free = steer(0, 1, 1, 2);
  CHECK(largest_over_even(free.first) > 2);
  CHECK(free.last == free.first);
  Steered steered = steer(0.02, 1, 1, 60);
  CHECK(steered.first == free.first);
  CHECK(largest_over_even(steered.last) < 1.25);
  // The state follows from the sums of all ranks and micro-batches.
  CHECK(steer(0.02, 4, 1, 60).last == steered.last);
  CHECK(steer(0.02, 2, 3, 60).last == steered.last);
}

}  // namespace adagate::test
