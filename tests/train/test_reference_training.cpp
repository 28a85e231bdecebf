// The training step as the program runs it (optimizer, weight decay, clipping, schedule,
// accumulation, ranks) against PyTorch's training of Transformers' models and of plain MoE decoders
// (tests/reference/generate_*.py).
#include "data/sampler.h"
#include "models/decoder.h"
#include "parallel/thread_communicator.h"
#include "tests/support/catch.h"
#include "tests/support/reference_fixture.h"
#include "train/config/run_config.h"
#include "train/learning_rate.h"
#include "train/tasks/next_token.h"
#include "train/training_step.h"

namespace adagate::test {
namespace {

// The rows of the fixture's steps one after the other; without shuffling a sampler takes them step
// by step.
class FixtureRows final : public Dataset {
 public:
  explicit FixtureRows(const ReferenceFixture& fixture)
      : tokens_(fixture.tensor("train/tokens")), targets_(fixture.tensor("train/targets")) {}
  int64_t length() const { return tokens_.dim(3); }
  int64_t rows_per_step() const { return tokens_.dim(1) * tokens_.dim(2); }
  int64_t size() const override { return tokens_.dim(0) * rows_per_step(); }
  Sample get(int64_t id) const override {
    auto row = [&](const Tensor& x) {
      const int32_t* first = x.data<int32_t>() + id * length();
      return std::vector<int32_t>(first, first + length());
    };
    return {row(tokens_), row(targets_)};
  }

 private:
  Tensor tokens_, targets_;  // [steps, accumulation, rows, length]
};

struct Setup {
  int ranks, expert_parallel;
  int64_t accumulation;
  bool recompute_blocks;
};

void expect_losses(const ReferenceFixture& fixture, const Setup& setup,
                   std::shared_ptr<Communicator> world) {
  Mesh mesh = make_mesh(std::move(world), setup.expert_parallel);
  bool first = mesh.world->rank() == 0;  // Catch2 checks from one thread only
  auto config = fixture.config<TrainConfig>("train");
  Decoder model(fixture.config<ModelConfig>("model"), fixture.config<MoeConfig>("moe"), mesh);
  ParameterStore store(model, StoreOptions{});
  for (Parameter* p : store.parameters()) fixture.set_weight(*p);
  store.refresh_compute();
  AdamW optimizer(store, config.optimizer);
  TrainingStep step(
      model, kNextToken, store, optimizer, mesh,
      {.clip_norm = config.optimizer.clip_norm, .recompute_blocks = setup.recompute_blocks});
  FixtureRows rows(fixture);
  Sampler sampler({.batch = {.size = rows.rows_per_step()},
                   .accumulation = setup.accumulation,
                   .shuffle = false},
                  rows.size());
  int64_t steps = config.length.steps({});
  LearningRate rate(config.optimizer.learning_rate, config.schedule.warmup.steps({}), steps,
                    config.schedule.decay, config.schedule.final_ratio);
  const auto& expected = fixture.json().at("train");
  if (first) REQUIRE(expected.at("losses").size() == static_cast<size_t>(steps));
  DataPosition position;
  for (int64_t i = 0; i < steps; ++i) {
    std::vector<Batch> batches;
    for (const BatchRows& b :
         sampler.micro_batches(position, mesh.world->rank(), mesh.world->size()))
      batches.push_back(make_batch(rows, b.sample_ids, b.places));
    StepResult result = step.run(batches, i, rate.at(i), false);
    position = sampler.after(position);
    if (!first) continue;
    INFO("step " << i);
    auto at = static_cast<size_t>(i);
    CHECK(std::abs(result.loss - expected.at("losses")[at].get<double>()) <= 1e-5);
    CHECK(result.grad_norm == Approx(expected.at("grad_norms")[at].get<double>()).epsilon(1e-4));
  }
}

}  // namespace

TEST_CASE("training: PyTorch's losses step by step, on every layout", "[train][reference]") {
  REQUIRE(!decoder_fixtures().empty());
  for (const std::string& name : decoder_fixtures()) {
    ReferenceFixture fixture(name);
    auto recipe = fixture.config<TrainConfig>("train");
    // The recipe has all that is to be compared.
    REQUIRE(recipe.optimizer.weight_decay > 0);
    REQUIRE(recipe.optimizer.clip_norm < fixture.json().at("train").at("grad_norms")[0]);
    std::vector<Setup> setups{{1, 1, recipe.accumulation, false}};
    // Several layouts where that is cheap.
    if (FixtureRows(fixture).length() < 100) {
      setups.push_back({1, 1, 1, true});
      setups.push_back({4, 2, 2, false});
    }
    for (const Setup& setup : setups) {
      INFO(name << ", ranks " << setup.ranks << ", expert " << setup.expert_parallel
                << ", accumulation " << setup.accumulation);
      run_ranks(setup.ranks, [&](std::shared_ptr<Communicator> world) {
        expect_losses(fixture, setup, std::move(world));
      });
    }
  }
}

}  // namespace adagate::test
