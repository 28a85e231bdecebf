// Steps whose gradient is not finite change nothing, on all ranks alike, and are accounted for.
#include <cmath>
#include <filesystem>

#include "models/weights.h"
#include "tests/support/catch.h"
#include "tests/train/tiny_run.h"
#include "tests/train/watched_run.h"

namespace adagate {
namespace {

namespace fs = std::filesystem;

// A run from weights of which one is infinite.
RunConfig broken_run(const TempFolder& folder, const std::string& name, double steps) {
  RunConfig config = tiny::run_config(folder);
  config.train.length = tiny::steps(steps);
  config.checkpoint.save_at_end = true;
  fs::path weights = folder.path() / "weights.safetensors";
  {
    Trainer trainer(config, {}, make_self_mesh().world);
    trainer.store().find("blocks.0.feed_forward.up.weight")->master().data<float>()[3] = INFINITY;
    export_weights(weights, trainer.store().parameters(), trainer.mesh());
  }
  config.checkpoint.initial_weights = weights.string();
  config.output = folder.path(name);
  return config;
}

}  // namespace

TEST_CASE("a gradient that is not finite on one rank skips the step on all") {
  using namespace tiny;
  Scenario s{.steps = 1};
  std::vector<int> skipped(2, 0), unchanged(2, 0);
  run_ranks(2, [&](std::shared_ptr<Communicator> world) {
    auto me = static_cast<size_t>(world->rank());
    Mesh mesh = make_mesh(std::move(world), 2);
    Decoder model(model_config(s), moe_config(s), mesh);
    ParameterStore store(model, {.master = DType::f64, .compute = DType::f64});
    store.initialize(5);
    Tensor up = store.find("blocks.1.moe.experts.up.weight")->master();
    if (me == 1) up.fill(NAN);  // its experts alone
    AdamW adamw(store, {});
    TrainingStep step(model, kNextToken, store, adamw, mesh, {.seed = 9});
    Tensor tokens = store.find("embedding.tokens")->master();
    std::vector<double> before = tokens.to_doubles();
    Samples samples(s, 8);
    std::vector<int64_t> ids{static_cast<int64_t>(me), static_cast<int64_t>(me) + 2};
    StepResult result = step.run(std::vector{make_batch(samples, ids, ids)}, 0, 0.01, false);
    skipped[me] = result.skipped;
    unchanged[me] = tokens.to_doubles() == before && adamw.steps() == 0;
  });
  CHECK(skipped == std::vector<int>{1, 1});
  CHECK(unchanged == std::vector<int>{1, 1});
}

TEST_CASE("skipped steps are not AdamW's, and too many in a row end the run") {
  TempFolder folder;
  RunConfig config = broken_run(folder, "short", 3);
  Trainer trainer(config, {}, make_self_mesh().world);
  trainer.run();
  CHECK(trainer.state().step == 3);
  Manifest manifest = read_manifest(find_latest(trainer.checkpoint_directory()).value());
  CHECK(manifest.state.extra.at("skipped_steps") == "3");
  CHECK(manifest.state.extra.at("skipped_in_a_row") == "3");

  config = broken_run(folder, "long", 30);
  Trainer endless(config, {}, make_self_mesh().world);
  CHECK_THROWS_WITH(endless.run(), Catch::Contains("not finite in 20 steps in a row"));
}

TEST_CASE("a diverged run keeps the last checkpoint that a step succeeded from, and names it") {
  TempFolder folder;
  RunConfig config = tiny::run_config(folder);
  config.train.length = tiny::steps(60);
  config.checkpoint.every = tiny::steps(1);
  config.checkpoint.keep = 1;
  tiny::WatchedRun run(config);
  // The weights break before the third checkpoint, though its step's gradient was finite.
  struct Breaker final : TrainingObserver {
    float& weight;
    explicit Breaker(float& w) : weight(w) {}
    void on_step(const StepReport& report) override {
      if (report.step == 3) weight = INFINITY;
    }
  } breaker(run.trainer.store().find("blocks.0.feed_forward.up.weight")->master().data<float>()[3]);
  run.trainer.observe(breaker);
  fs::path good = run.trainer.checkpoint_directory() / step_name(2);
  CHECK_THROWS_WITH(run.run(), Catch::Contains(good.string()));
  CHECK(run.seen.saved == std::vector<int64_t>{1, 2, 3});
  CHECK(fs::exists(good / kManifestFile));
  CHECK_FALSE(fs::exists(run.trainer.checkpoint_directory() / step_name(1)));
}

TEST_CASE("a checkpoint that falls due while steps are skipped is saved after the next good one") {
  TempFolder folder;
  RunConfig config = tiny::run_config(folder);
  config.train.length = tiny::steps(9);
  config.checkpoint.every = tiny::steps(2);
  tiny::WatchedRun run(config);
  struct Breaker final : TrainingObserver {
    float& weight;
    float good;
    explicit Breaker(float& w) : weight(w), good(w) {}
    void on_step(const StepReport& report) override {
      weight = report.step == 3 ? INFINITY : good;  // the fourth step is skipped
    }
  } breaker(run.trainer.store().find("blocks.0.feed_forward.up.weight")->master().data<float>()[3]);
  run.trainer.observe(breaker);
  run.run();
  CHECK(run.seen.saved == std::vector<int64_t>{2, 5, 6, 8});
}

TEST_CASE("skipped steps with good ones in between don't end the run") {
  TempFolder folder;
  RunConfig config = tiny::run_config(folder);
  config.train.length = tiny::steps(45);
  config.checkpoint.save_at_end = true;
  tiny::WatchedRun run(config);
  float& weight =
      run.trainer.store().find("blocks.0.feed_forward.up.weight")->master().data<float>()[3];
  // 19 steps without a finite gradient, a good one, 19 more, and good ones again.
  struct Breaker final : TrainingObserver {
    float& weight;
    float good;
    explicit Breaker(float& w) : weight(w), good(w) { w = INFINITY; }
    void on_step(const StepReport& report) override {
      weight = report.step == 19 || report.step >= 39 ? good : INFINITY;
    }
  } breaker(weight);
  run.trainer.observe(breaker);
  REQUIRE(run.run() == TrainingEnd::finished);
  int64_t skipped = 0;
  for (const StepReport& report : run.seen.steps) {
    INFO("step " << report.step);
    CHECK(report.result.skipped == (report.step != 20 && report.step < 40));
    skipped += report.result.skipped;
  }
  CHECK(skipped == 38);
  Manifest manifest = read_manifest(find_latest(run.trainer.checkpoint_directory()).value());
  CHECK(manifest.state.extra.at("skipped_steps") == "38");
}

}  // namespace adagate
