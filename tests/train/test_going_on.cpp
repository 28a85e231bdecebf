// Runs that go on from a checkpoint: which checkpoints of the output stay, what a stop owes.
#include <algorithm>
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

TEST_CASE("going on: each stretch keeps its configuration, from its first step on") {
  TempFolder folder;
  RunConfig config = run_of(folder, "run", 4);
  Trainer(config, {}, make_self_mesh().world).run();
  std::string first = folder.read("run/config.yaml");
  auto resumed = [&](int64_t from, bool overwrite = false) {
    config.checkpoint.resume = from < 0 ? "auto" : checkpoint_of(config, from);
    TrainerOptions options{.overwrite = overwrite, .allowed_changes = {"moe.gate"}};
    Trainer(config, options, make_self_mesh().world).run();
  };
  auto kept = [&] {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(config.output))
      if (entry.path().extension() == ".yaml") names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
  };
  using Names = std::vector<std::string>;
  // Nothing to train: no step was taken under this gate.
  config.moe.gate.threshold = 0.2;
  resumed(-1);
  CHECK(folder.read("run/config.yaml") == first);
  CHECK(kept() == Names{"config.yaml"});
  // Steps 5 to 8 under it, and a stop between, at which nothing changes.
  config.train.length = steps(6);
  resumed(-1);
  config.train.length = steps(8);
  config.moe.gate.threshold = 0.3;
  resumed(-1);
  CHECK(kept() == Names{"config-until-00000004.yaml", "config-until-00000006.yaml", "config.yaml"});
  CHECK(folder.read("run/config-until-00000004.yaml") == first);
  CHECK(folder.read("run/config-until-00000006.yaml").find("threshold: 0.2") != std::string::npos);
  CHECK(folder.read("run/config.yaml").find("threshold: 0.3") != std::string::npos);
  // Back to the first stretch: what told of later ones goes, another file stays.
  folder.write("run/config-until-00000006-mine.yaml", "mine");
  config.moe.gate.threshold = 0.1;
  resumed(2, true);
  CHECK(kept() ==
        Names{"config-until-00000002.yaml", "config-until-00000006-mine.yaml", "config.yaml"});
}

TEST_CASE("going on: a run that can't start leaves the configuration alone") {
  TempFolder folder;
  RunConfig config = run_of(folder, "run", 4);
  {
    Trainer never_run(config, {}, make_self_mesh().world);
    CHECK_FALSE(std::filesystem::exists(folder.path("run/config.yaml")));
  }
  Trainer(config, {}, make_self_mesh().world).run();
  std::string yaml = folder.read("run/config.yaml");
  config.checkpoint.resume = "auto";
  config.train.length = steps(8);
  config.moe.gate.threshold = 0.2;
  CHECK_THROWS_WITH(Trainer(config, {}, make_self_mesh().world),
                    Catch::StartsWith("moe.gate.threshold is 0.2, but the run that saved ") &&
                        Catch::Contains(" had 0.1: ") &&
                        Catch::Contains("--allow-change moe.gate.threshold"));
  CHECK(folder.read("run/config.yaml") == yaml);
}

TEST_CASE("going on: observers are told once, with what has changed") {
  struct Resumes final : TrainingObserver {
    std::vector<ResumeReport> all;
    int64_t steps_before = -1, steps = 0;
    void on_resume(const ResumeReport& report) override {
      all.push_back(report);
      steps_before = steps;
    }
    void on_step(const StepReport&) override { ++steps; }
  };
  TempFolder folder;
  RunConfig config = run_of(folder, "run", 4);
  auto watched = [&](TrainerOptions options) {
    Resumes seen;
    Trainer trainer(config, options, make_self_mesh().world);
    trainer.observe(seen);
    trainer.run();
    return seen;
  };
  CHECK(watched({}).all.empty());
  config.checkpoint.resume = "auto";
  CHECK(watched({}).all.empty());  // nothing to train
  config.train.length = steps(6);
  config.moe.gate.threshold = 0.2;
  Resumes seen = watched({.allowed_changes = {"moe.gate.threshold"}});
  REQUIRE(seen.all.size() == 1);
  CHECK(seen.steps_before == 0);
  CHECK(seen.all[0].step == 4);
  CHECK(changes_text(seen.all[0].changes) ==
        "moe.gate.threshold 0.1 -> 0.2, train.length 4s -> 6s");
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
