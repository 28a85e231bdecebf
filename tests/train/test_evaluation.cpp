// The validation loss: a mean over targets, whatever the batches and the ranks.
#include "tests/support/catch.h"
#include "tests/train/tiny_run.h"
#include "train/evaluation.h"
#include "train/task_table.h"

using namespace adagate;
using namespace adagate::tiny;

namespace {

constexpr int64_t kSamples = 37;  // fills no number of batches

struct Evaluated {
  EvaluationResult result;
  double single_share = 0;
};

Evaluated evaluate_on(const Scenario& s, int ranks, int expert_parallel, int64_t rows) {
  Evaluated evaluated;
  run_ranks(ranks, [&](std::shared_ptr<Communicator> world) {
    Mesh mesh = make_mesh(std::move(world), expert_parallel);
    Decoder model(model_config(s), moe_config(s), mesh);
    ParameterStore store(model, {.master = DType::f64, .compute = DType::f64, .allocate_grad = {}});
    store.initialize(5);
    Samples samples(s, kSamples);
    EvaluationPass pass(samples, rows, mesh.world->rank(), mesh.world->size(), -1);
    RoutingStep routing(model.moe_layers(), 4, {.loss = "none"});
    EvaluationResult result = evaluate(kLanguageModelling, model, pass, mesh, &routing);
    if (mesh.world->rank() == 0) evaluated = {result, routing.layer(0).share_with(1)};
  });
  return evaluated;
}

}  // namespace

TEST_CASE("evaluation: the same on any number of ranks and rows of a batch") {
  for (const char* policy : {"adaptive", "random_one_or_two"}) {
    Scenario s{.policy = policy};
    Evaluated alone = evaluate_on(s, 1, 1, 1);
    int64_t targets = 0;
    for (int64_t id = 0; id < kSamples; ++id)
      for (int32_t target : make_sample(s, id).targets) targets += target >= 0;
    CHECK(alone.result.targets == targets);
    CHECK(alone.single_share > 0);
    CHECK(alone.single_share < 1);
    for (auto [ranks, expert, rows] :
         {std::array{1, 1, 8}, {2, 1, 8}, {2, 2, 3}, {4, 2, 8}, {4, 4, 64}}) {
      INFO(policy << ", ranks " << ranks << ", expert " << expert << ", rows " << rows);
      Evaluated here = evaluate_on(s, ranks, expert, rows);
      CHECK(here.result.targets == targets);
      CHECK(here.result.loss() == Approx(alone.result.loss()).epsilon(1e-12));
      CHECK(here.single_share == alone.single_share);
    }
  }
}

TEST_CASE("evaluation: nothing is dropped") {
  CHECK(evaluate_on({.dropout = 0.5}, 1, 1, 8).result.loss() ==
        evaluate_on({.dropout = 0.0}, 1, 1, 8).result.loss());
}
