// How runs end, what they leave in their output, and what they do to that of another.
#include <csignal>

#include "core/device/allocator.h"
#include "tests/support/catch.h"
#include "tests/support/one_thread.h"
#include "tests/train/watched_run.h"
#include "train/signals.h"

namespace adagate {
namespace {

using namespace tiny;
namespace fs = std::filesystem;

std::vector<std::string> names_in(const fs::path& directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (auto& entry : fs::directory_iterator(directory, error))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

using Names = std::vector<std::string>;

}  // namespace

TEST_CASE("run: stop_at_loss ends it at the first evaluation at or below") {
  TempFolder folder;
  RunConfig config = run_config(folder);
  config.data.validation_share = 0.3;
  config.train.length = steps(8);
  config.train.evaluate_every = steps(1);
  std::vector<double> losses;
  for (const EvaluationReport& report : watch(config).evaluations) losses.push_back(report.loss());
  REQUIRE(losses.size() == 8);
  REQUIRE(losses[4] < losses[0]);  // it learns

  double between = (losses[0] + losses[4]) / 2;
  for (double bound : {losses[0] + 1, losses[0], between, losses[4]}) {
    INFO("stop at " << bound);
    config.train.stop_at_loss = bound;
    auto first = std::find_if(losses.begin(), losses.end(), [&](double x) { return x <= bound; });
    WatchedRun run(config);
    CHECK(run.run() == TrainingEnd::loss_reached);
    CHECK(run.trainer.state().step == first - losses.begin() + 1);
  }
  config.train.stop_at_loss = 1e-3;
  WatchedRun run(config);
  CHECK(run.run() == TrainingEnd::finished);
  CHECK(run.trainer.state().step == 8);
}

TEST_CASE("run: saves at its end if told so") {
  TempFolder folder;
  RunConfig config = run_config(folder);
  CHECK(watch(config).saved.empty());
  CHECK(names_in(folder.path() / "run/checkpoints").empty());
  config.checkpoint.save_at_end = true;
  CHECK(watch(config).saved == std::vector<int64_t>{3});
  CHECK(names_in(folder.path() / "run/checkpoints") == Names{"step-00000003"});
}

TEST_CASE("run: saves as often and keeps as many as it is told") {
  TempFolder folder;
  RunConfig config = run_config(folder);
  config.train.length = steps(5);
  config.checkpoint.every = steps(1);
  config.checkpoint.keep = 2;
  CHECK(watch(config).saved == std::vector<int64_t>{1, 2, 3, 4});  // the end is save_at_end's
  CHECK(names_in(folder.path() / "run/checkpoints") == Names{"step-00000003", "step-00000004"});
}

TEST_CASE("run: each step knows how many evaluations and checkpoints are to come") {
  TempFolder folder;
  RunConfig config = run_config(folder);
  config.train.length = steps(6);
  for (bool validation : {false, true}) {
    config.data.validation_share = validation ? 0.3 : 0;
    for (int every : {0, 1, 2, 4, 6, 9}) {
      config.train.evaluate_every = steps(every);
      config.checkpoint.every = steps(every);
      config.checkpoint.save_at_end = every % 2 == 0;
      INFO("every " << every << ", validation " << validation);
      config.output = folder.path(fmt::format("run-{}-{}", validation, every));
      Watcher seen = watch(config);
      REQUIRE(seen.steps.size() == 6);
      for (const StepReport& step : seen.steps) {
        CHECK(step.checkpoints_to_come ==
              std::count_if(seen.saved.begin(), seen.saved.end(),
                            [&](int64_t saved) { return saved >= step.step; }));
        CHECK(step.evaluations_to_come ==
              std::count_if(seen.evaluations.begin(), seen.evaluations.end(),
                            [&](const EvaluationReport& e) { return e.step >= step.step; }));
      }
    }
  }
}

TEST_CASE("run: the best validation loss outlives a stop") {
  TempFolder folder;
  RunConfig config = run_config(folder);
  config.data.validation_share = 0.3;
  config.train.length = steps(3);
  config.train.evaluate_every = steps(1);
  config.checkpoint.save_at_end = true;
  Watcher first = watch(config);
  auto best = first.evaluations.back().best;
  REQUIRE(best);
  CHECK_FALSE(first.steps[0].best);
  for (const EvaluationReport& e : first.evaluations) CHECK(best->value <= e.loss());
  config.checkpoint.resume = "auto";
  config.train.length = steps(4);
  config.train.optimizer.learning_rate = 10;  // from now on all is worse
  WatchedRun run(config, {.allowed_changes = {"train.optimizer"}});
  run.run();
  const Watcher& second = run.seen;
  REQUIRE(second.steps.size() == 1);
  REQUIRE(second.steps[0].best);
  CHECK(second.steps[0].best->value == best->value);
  CHECK(second.evaluations.back().loss() > best->value);
  CHECK(second.evaluations.back().best->value == best->value);
  CHECK(second.evaluations.back().best->step == best->step);
}

TEST_CASE("run: recomputed activations and parts of the batch save memory and train alike") {
  OneThread one;
  TempFolder folder;
  RunConfig config = run_config(folder);
  config.model.layers = 12;
  config.train.batch = 6;
  auto run_with = [&](const char* recomputed, int64_t accumulation) {
    config.train.activation_checkpointing = recomputed;
    config.train.accumulation = accumulation;
    WatchedRun run(config);
    trim_allocator();  // whatever the tests before left
    reset_peak_memory();
    int64_t before = allocator_stats().bytes_in_use;
    run.run();
    return std::pair(run.seen.losses(), allocator_stats().peak_bytes_in_use - before);
  };
  auto [plain, all_kept] = run_with("none", 1);
  auto [recomputed, inputs_kept] = run_with("block", 1);
  auto [in_parts, part_kept] = run_with("none", 3);
  CHECK(recomputed == plain);
  for (size_t i = 0; i < plain.size(); ++i) CHECK(in_parts.at(i) == Approx(plain[i]).epsilon(1e-5));
  CHECK(inputs_kept < all_kept * 2 / 3);
  CHECK(part_kept < all_kept * 2 / 3);
}

TEST_CASE("run: a signal saves whatever save_at_end says, and ends it") {
  struct Signalled final : TrainingObserver {
    Signalled() { install_stop_signals(); }
    ~Signalled() override { clear_stop_signal(); }
    void on_step(const StepReport& report) override {
      if (report.step == 2) std::raise(SIGTERM);
    }
  } signalled;
  TempFolder folder;
  RunConfig config = run_config(folder);
  config.train.length = steps(10);
  WatchedRun run(config);
  run.trainer.observe(signalled);
  CHECK(run.run() == TrainingEnd::stopped_by_signal);
  CHECK(run.trainer.state().step == 3);  // the step under way is whole
  CHECK(names_in(folder.path() / "run/checkpoints") == Names{"step-00000003"});
}

TEST_CASE("run: keeps its effective configuration") {
  TempFolder folder;
  RunConfig config = run_config(folder);
  config.checkpoint.save_at_end = true;
  watch(config);
  std::string yaml = write_yaml(config);
  CHECK_THAT(folder.read("run/config.yaml"), Catch::EndsWith("adagate.\n" + yaml));
  CHECK(read_manifest(folder.path() / "run/checkpoints/step-00000003").config_yaml == yaml);
}

TEST_CASE("run: the checkpoints of another are in the way, or go with overwrite") {
  TempFolder folder;
  RunConfig config = run_config(folder);
  config.checkpoint.save_at_end = true;
  watch(config);
  fs::path checkpoints = folder.path() / "run/checkpoints";
  std::string manifest = folder.read("run/checkpoints/step-00000003/manifest.json");
  std::string yaml = folder.read("run/config.yaml");

  config.seed = 2;
  config.train.length = steps(2);
  CHECK_THROWS_WITH(WatchedRun(config), Catch::Contains("holds checkpoints of an earlier run"));
  // One that may overwrite, but can't start.
  RunConfig wrong = config;
  wrong.checkpoint.initial_weights = folder.path("none.safetensors");
  CHECK_THROWS_WITH(WatchedRun(wrong, true), Catch::Contains("none.safetensors"));
  CHECK(names_in(checkpoints) == Names{"step-00000003"});
  CHECK(folder.read("run/checkpoints/step-00000003/manifest.json") == manifest);
  CHECK(folder.read("run/config.yaml") == yaml);

  watch(config, true);
  CHECK(names_in(checkpoints) == Names{"step-00000002"});
  CHECK_THAT(folder.read("run/config.yaml"), Catch::EndsWith(write_yaml(config)));
}

}  // namespace adagate
