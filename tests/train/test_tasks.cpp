// The table of tasks, the key that names one, and runs of tasks beside the table.
// tests/howto/test_add_a_task.cpp trains another one from its data to its metric.
#include <set>

#include "tests/support/catch.h"
#include "tests/support/message_of.h"
#include "tests/support/test_paths.h"
#include "tests/train/watched_run.h"
#include "train/config/yaml_loader.h"
#include "train/resume.h"
#include "train/saved_model.h"

namespace adagate {
namespace {

using namespace tiny;

// Language modelling under another name, by whose perplexity more would be better.
Task confusion() {
  static constexpr std::array kMetrics = {
      MetricKind{.name = kLossMetric},
      MetricKind{.name = "perplexity", .better = Better::higher, .digits = 2}};
  Task task = kLanguageModelling;
  task.name = "confusion";
  task.metrics = kMetrics;
  task.best = "perplexity";
  return task;
}

RunConfig evaluated_config(const TempFolder& folder) {
  RunConfig config = run_config(folder);
  config.data.validation_share = 0.3;
  config.train.evaluate_every = steps(1);
  config.checkpoint.save_at_end = true;
  return config;
}

}  // namespace

TEST_CASE("tasks: every entry of the table is whole") {
  std::set<std::string_view> names;
  for (const Task& task : kTasks) {
    INFO(task.name);
    CHECK(names.insert(task.name).second);
    CHECK_FALSE(task.help.empty());
    CHECK((task.make_model && task.score && task.values && task.sums > 0));
    CHECK((task.data.open && task.data.open_validation && task.data.open_file && task.data.plan));
    CHECK((task.objective.forward && task.objective.loss && task.objective.visible_pairs));
    std::vector<double> sums(static_cast<size_t>(task.sums), 1.0);
    for (int64_t targets : {0, 2}) {
      Metrics metrics = metrics_of(task.metrics, task.values(sums, targets));
      CHECK_NOTHROW(metric_named(kLossMetric, metrics));
      for (const Metric& metric : metrics) CHECK(std::isfinite(metric.value));
    }
    CHECK(best_kind(task).name == task.best);
    for (const MetricKind& kind : task.metrics) CHECK_FALSE(kind.help.empty());
    CHECK(&task_named(task.name) == &task);
  }
  CHECK_THROWS_WITH(task_named("modelling"), "task is 'modelling': one of language_modelling");
}

TEST_CASE("tasks: the key names one of the table, language modelling where it is not there") {
  auto read = [](const std::string& text) {
    ConfigTree tree;
    tree.add_text(text, "x.yaml");
    return read_config<RunConfig>(tree).task;
  };
  CHECK(read("seed: 1\n") == "language_modelling");
  CHECK(read("task: language_modelling\n") == "language_modelling");
  std::string message = message_of([&] { read("seed: 1\ntask: language_modeling\n"); });
  CHECK_THAT(message, Catch::StartsWith("x.yaml:2: ") && Catch::Contains("task") &&
                          Catch::Contains("language_modelling"));
  CHECK(role_of("task") == KeyRole::identity);
  TempFolder folder;
  RunConfig config = run_config(folder);
  CHECK(&WatchedRun(config).trainer.task() == &kTasks[0]);
  config.task = "another";
  CHECK_THAT(message_of([&] { WatchedRun run(config); }),
             Catch::Contains("task is 'another': one of language_modelling"));
}

TEST_CASE("tasks: a checkpoint without the key is one of language modelling") {
  Manifest manifest = read_manifest(source_path("tests/train/fixtures/format_2/step-00000006"));
  CHECK(manifest.config_yaml.find("task:") == std::string::npos);
  CHECK(RunRecord::read(manifest.state).own_task.empty());
  ConfigTree tree;
  tree.add_text(manifest.config_yaml, "manifest");
  auto config = read_config<RunConfig>(tree);
  CHECK(config.task == "language_modelling");
  CHECK_NOTHROW(check_task(RunRecord::read(manifest.state), config, kLanguageModelling, "c"));
}

TEST_CASE("tasks: a run tells, keeps and goes on with the best by its task's metric") {
  TempFolder folder;
  RunConfig config = evaluated_config(folder);
  Task task = confusion();
  std::vector<EvaluationReport> evaluations;
  {
    WatchedRun run(config, {.task = &task});
    run.run();
    evaluations = run.seen.evaluations;
  }
  REQUIRE(evaluations.size() == 3);
  double worst = 0;
  for (const EvaluationReport& e : evaluations)
    worst = std::max(worst, metric_named("perplexity", e.metrics).value);
  REQUIRE(worst > metric_named("perplexity", evaluations.back().metrics).value);
  CHECK(evaluations.back().best->value == worst);
  config.checkpoint.resume = "auto";
  config.train.length = steps(4);
  WatchedRun on(config, {.task = &task});
  on.run();
  CHECK(on.seen.steps.at(0).best->value == worst);
  CHECK(on.seen.steps.at(0).best->kind.name == "perplexity");
}

TEST_CASE("tasks: only the task of a run goes on with it or reads it") {
  TempFolder folder;
  RunConfig config = evaluated_config(folder);
  Task task = confusion();
  WatchedRun(config, {.task = &task}).run();
  CHECK(load_model(config.output, "", make_self_mesh().world, &task).task == &task);
  const std::string not_confusion = "was trained for the task confusion, not language_modelling";
  CHECK_THAT(message_of([&] { load_model(config.output, "", make_self_mesh().world); }),
             Catch::Contains(not_confusion));
  config.checkpoint.resume = "auto";
  config.train.length = steps(4);
  CHECK_THAT(message_of([&] { WatchedRun run(config); }), Catch::Contains(not_confusion));

  config.output = folder.path("plain");
  config.checkpoint.resume = "none";
  WatchedRun(config).run();
  config.checkpoint.resume = "auto";
  config.train.length = steps(5);
  CHECK_THAT(message_of([&] { WatchedRun run(config, {.task = &task}); }),
             Catch::Contains("was trained for the task language_modelling, not confusion"));
  // Nothing of it has gone.
  WatchedRun run(config);
  CHECK(run.run() == TrainingEnd::finished);
  CHECK(run.seen.steps.size() == 1);
}

TEST_CASE("tasks: the checkpoints of the table's say nothing beside the key") {
  TempFolder folder;
  RunConfig config = evaluated_config(folder);
  WatchedRun(config).run();
  Manifest manifest = read_manifest(resolve_checkpoint(config.output));
  CHECK(manifest.state.extra.count("task") == 0);
  CHECK_THAT(manifest.config_yaml, Catch::Contains("\ntask: language_modelling"));
}

}  // namespace adagate
