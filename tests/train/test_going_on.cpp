// Runs that go on from a checkpoint: which checkpoints of the output stay, what a stop owes.
#include <csignal>
#include <filesystem>

#include "core/device/allocator.h"
#include "moe/routing_step.h"
#include "tests/support/catch.h"
#include "tests/train/watched_run.h"
#include "train/signals.h"

namespace adagate {
namespace {

using tiny::steps;

// Saves every other step, evaluates every fourth.
RunConfig run_of(const TempFolder& folder, const std::string& name, double length) {
  RunConfig config = tiny::run_config(folder, 400);
  config.moe.experts = 2;
  config.train.length = steps(length);
  config.train.evaluate_every = steps(4);
  config.checkpoint.every = steps(2);
  config.checkpoint.save_at_end = true;
  config.checkpoint.keep = 0;
  config.data.validation_share = 0.2;
  config.output = folder.path(name);
  return config;
}

std::vector<int64_t> steps_kept(const Trainer& trainer) {
  std::vector<int64_t> steps;
  for (auto& [step, path] : complete_checkpoints(trainer.checkpoint_directory()))
    steps.push_back(step);
  return steps;
}

std::string checkpoint_of(const RunConfig& config, int64_t step) {
  return fmt::format("{}/checkpoints/step-{:08}", config.output, step);
}

struct Evaluations final : TrainingObserver {
  std::vector<int64_t> steps;
  int64_t stop_after = -1;  // a signal comes during the step before this one ends
  void on_step(const StepReport& report) override {
    if (report.step + 1 == stop_after) std::raise(SIGUSR1);
  }
  void on_evaluation(const EvaluationReport& report) override { steps.push_back(report.step); }
};

}  // namespace

TEST_CASE("going back: checkpoints of later steps stay unless they may go") {
  TempFolder folder;
  RunConfig config = run_of(folder, "run", 8);
  Trainer(config, {}, make_self_mesh().world).run();
  config.checkpoint.resume = checkpoint_of(config, 4);
  CHECK_THROWS_WITH(Trainer(config, {}, make_self_mesh().world),
                    Catch::Contains("step-00000008") && Catch::Contains("--overwrite"));
  {
    Trainer refused_changed_nothing(
        [&] {
          RunConfig same = config;
          same.checkpoint.resume = "auto";
          return same;
        }(),
        {}, make_self_mesh().world);
    CHECK(refused_changed_nothing.state().step == 8);
    CHECK(steps_kept(refused_changed_nothing) == std::vector<int64_t>{2, 4, 6, 8});
    CHECK(refused_changed_nothing.continued_step() == 8);
  }
  Trainer back(config, {.config_yaml = "", .overwrite = true}, make_self_mesh().world);
  CHECK(back.state().step == 4);
  CHECK(back.continued_step() == 4);
  CHECK(steps_kept(back) == std::vector<int64_t>{2, 4});
}

TEST_CASE("going on clears away what a killed run has left, even at its end") {
  TempFolder folder;
  RunConfig config = run_of(folder, "run", 4);
  Trainer(config, {}, make_self_mesh().world).run();
  folder.write("run/checkpoints/.step-00000006.tmp/" + shard_name(0, 1), "half written");
  folder.write("run/checkpoints/step-00000001/" + shard_name(0, 1), "its manifest is removed");
  config.checkpoint.resume = "auto";
  Trainer done(config, {}, make_self_mesh().world);
  CHECK(done.run() == TrainingEnd::finished);
  CHECK(steps_kept(done) == std::vector<int64_t>{2, 4});
  auto left = std::filesystem::directory_iterator(done.checkpoint_directory());
  CHECK(std::distance(begin(left), end(left)) == 2);
}

TEST_CASE("going on in another output: what another run left there stays unless it may go") {
  TempFolder folder;
  RunConfig first = run_of(folder, "first", 4), second = run_of(folder, "second", 2);
  Trainer(first, {}, make_self_mesh().world).run();
  Trainer(second, {}, make_self_mesh().world).run();
  second.train.length = steps(8);
  second.checkpoint.resume = checkpoint_of(first, 4);
  CHECK_THROWS_WITH(Trainer(second, {}, make_self_mesh().world), Catch::Contains("step-00000002"));
  Trainer taken(second, {.config_yaml = "", .overwrite = true}, make_self_mesh().world);
  CHECK(taken.continued_step() == -1);
  taken.run();
  CHECK(steps_kept(taken) == std::vector<int64_t>{6, 8});
}

TEST_CASE("an evaluation due when a signal stops the run is made up for") {
  TempFolder folder;
  clear_stop_signal();
  install_stop_signals();
  for (int64_t stop : {4, 8}) {
    CAPTURE(stop);
    RunConfig config = run_of(folder, fmt::format("stop{}", stop), 8);
    Evaluations stopped, resumed, again;
    stopped.stop_after = stop;
    {
      Trainer trainer(config, {}, make_self_mesh().world);
      trainer.observe(stopped);
      CHECK(trainer.run() == TrainingEnd::stopped_by_signal);
      CHECK(trainer.state().step == stop);
    }
    clear_stop_signal();
    config.checkpoint.resume = "auto";
    for (Evaluations* observer : {&resumed, &again}) {
      Trainer trainer(config, {}, make_self_mesh().world);
      trainer.observe(*observer);
      CHECK(trainer.run() == TrainingEnd::finished);
    }
    std::vector<int64_t> all = stopped.steps;
    all.insert(all.end(), resumed.steps.begin(), resumed.steps.end());
    CHECK(all == std::vector<int64_t>{4, 8});
    CHECK(again.steps.empty());
  }
}

TEST_CASE("an evaluation keeps no memory for each of its batches") {
  TempFolder folder;
  RunConfig config = run_of(folder, "run", 4);
  config.data.validation_share = 0.8;
  struct Memory final : TrainingObserver {
    std::vector<int64_t> after_step, after_evaluation;
    void on_step(const StepReport&) override {
      after_step.push_back(allocator_stats().bytes_in_use);
    }
    void on_evaluation(const EvaluationReport&) override {
      after_evaluation.push_back(allocator_stats().bytes_in_use);
    }
  } memory;
  config.train.evaluate_every = steps(1);
  Trainer trainer(config, {}, make_self_mesh().world);
  trainer.observe(memory);
  trainer.run();
  CHECK(memory.after_evaluation == memory.after_step);
}

TEST_CASE("a dense model needs no counting pass") {
  RoutingStep dense(0, 0, BalanceConfig{.loss = "paper", .coefficient = 0.01}),
      sparse(1, 2, BalanceConfig{.loss = "paper", .coefficient = 0.01});
  for (RoutingStep* step : {&dense, &sparse}) step->begin(2);
  CHECK_FALSE(dense.needs_counting_pass());
  CHECK(sparse.needs_counting_pass());
}

}  // namespace adagate
