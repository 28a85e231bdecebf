// The task of docs/howto/add_a_task.md, trained, evaluated, saved and gone on with by what knows
// language modelling alone.
#include <fmt/format.h>
#include <mutex>

#include "data/labelled_lines.h"
#include "models/decoder.h"
#include "parallel/staged_communicator.h"
#include "parallel/thread_communicator.h"
#include "tests/support/catch.h"
#include "tests/support/guarded_device.h"
#include "tests/support/message_of.h"
#include "tests/support/temp_folder.h"
#include "train/evaluation.h"
#include "train/metrics_writer.h"
#include "train/saved_model.h"
#include "train/tasks/classification.h"
#include "train/trainer.h"

using namespace adagate;

namespace {

// Words of a and b in turn; the class is that of the first letter.
std::string lines(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) {
    int label = i * 7 % 3 % 2;
    text +=
        fmt::format("{}\t{}{}\n", label, label ? "b" : "a", std::string(1 + i % 5, "xyz"[i % 3]));
  }
  return text;
}

Duration steps(double n) {
  return {n, Duration::Unit::steps};
}

RunConfig config_in(const TempFolder& folder) {
  RunConfig config;
  config.model.layers = 1;
  config.model.width = 16;
  config.model.heads = 2;
  config.model.context = 8;
  config.model.initializer_range = 0.2;
  config.moe.experts = 4;
  config.data.train = folder.write("train.tsv", lines(40));
  config.data.validation = folder.write("validation.tsv", lines(13));
  config.data.prefetch = 0;
  config.train.batch = 5;
  config.train.length = steps(16);
  config.train.evaluate_every = steps(4);
  config.train.optimizer.learning_rate = 0.02;
  config.train.schedule.warmup = steps(0);
  config.train.schedule.decay = "constant";
  config.checkpoint.every = steps(0);
  config.output = folder.path("run");
  return config;
}

struct Told final : TrainingObserver {
  std::vector<double> losses;
  std::vector<EvaluationReport> evaluations;

  void on_step(const StepReport& report) override { losses.push_back(report.result.loss); }
  void on_evaluation(const EvaluationReport& report) override { evaluations.push_back(report); }
  double last(std::string_view metric) const {
    return metric_named(metric, evaluations.back().metrics).value;
  }
};

// What rank 0 is told; ranks are threads.
Told train(const RunConfig& config, int ranks = 1, const Task* task = &kClassification) {
  Told told;
  run_ranks(ranks, [&](std::shared_ptr<Communicator> world) {
    bool first = world->rank() == 0;
    Trainer trainer(config, {.task = task}, world);
    if (first) trainer.observe(told);
    trainer.run();
  });
  return told;
}

}  // namespace

// [test]
TEST_CASE("classification: is learnt, on one rank and two alike") {
  TempFolder folder;
  RunConfig config = config_in(folder);
  Told alone = train(config);
  CHECK(alone.last("accuracy") == 1);
  CHECK(alone.last("loss") < alone.evaluations.front().loss());
  CHECK(alone.evaluations.back().targets == 13);
  config.parallel.expert = 2;
  config.output = folder.path("two");
  Told two = train(config, 2);
  REQUIRE(two.losses.size() == 16);
  for (size_t i = 0; i < two.losses.size(); ++i)
    CHECK(two.losses[i] == Approx(alone.losses[i]).epsilon(1e-4));
  CHECK(two.evaluations.front().targets == 13);
  for (size_t e = 0; e < alone.evaluations.size(); ++e)
    CHECK(metric_named("accuracy", two.evaluations[e].metrics).value ==
          metric_named("accuracy", alone.evaluations[e].metrics).value);
}
// [end]

TEST_CASE("classification: accuracy and loss are those of the samples") {
  TempFolder folder;
  RunConfig config = config_in(folder);
  config.train.length = steps(3);
  config.train.evaluate_every = steps(1);
  Told told;
  Trainer trainer(config, {.task = &kClassification}, make_self_mesh().world);
  trainer.observe(told);
  trainer.run();
  RunData data =
      open_labelled_data(trainer.config(), *load_tokenizer("byte"), {}, *make_self_mesh().world);
  double right = 0, loss = 0;
  for (int64_t i = 0; i < data.validation->size(); ++i) {
    EvaluationPass one(*data.validation, 1, 0, 1);
    Batch batch = one.batch(i);
    NoRecording off;
    auto sums = score_classes(trainer.model(), batch, *data.validation, {}).to_host<double>();
    loss += sums[0] / 13;
    right += sums[1];
  }
  CHECK(told.last("accuracy") == right / 13);
  CHECK(told.last("loss") == Approx(loss).epsilon(1e-5));
  // The best is that of the most accurate evaluation, the first of equal ones.
  const EvaluationReport* best = &told.evaluations[0];
  auto accuracy = [](const EvaluationReport& e) {
    return metric_named("accuracy", e.metrics).value;
  };
  for (const EvaluationReport& e : told.evaluations)
    if (accuracy(e) > accuracy(*best)) best = &e;
  REQUIRE(told.evaluations.back().best);
  CHECK(told.evaluations.back().best->value == accuracy(*best));
  CHECK(told.evaluations.back().best->step == best->step);
}

TEST_CASE("classification: a run is saved, gone on with on other ranks, read and evaluated") {
  TempFolder folder;
  RunConfig config = config_in(folder);
  Told whole = train(config);
  config.output = folder.path("parts");
  config.train.length = steps(7);
  train(config);
  config.checkpoint.resume = "auto";
  config.train.length = steps(16);
  for (int ranks : {1, 2}) {
    INFO("gone on with on " << ranks);
    RunConfig on = config;
    on.checkpoint.resume = folder.path("parts/checkpoints/step-00000007");
    on.output = folder.path(fmt::format("on-{}", ranks));
    Told rest = train(on, ranks);
    REQUIRE(rest.losses.size() == 9);
    for (size_t i = 0; i < rest.losses.size(); ++i)
      CHECK(rest.losses[i] == Approx(whole.losses[7 + i]).epsilon(ranks == 1 ? 0 : 1e-4));
    CHECK(rest.evaluations.back().best->step <= whole.evaluations.back().best->step);
  }
  auto world = make_self_mesh().world;
  SavedModel saved = load_model(folder.path("run"), "", world, &kClassification);
  RunData data = open_labelled_validation(saved.config, *saved.tokenizer, {}, *saved.mesh.world);
  EvaluationPass pass(*data.validation, 8, 0, 1);
  CHECK(evaluate(*saved.task, *saved.model, pass, saved.mesh, nullptr).loss() ==
        whole.last("loss"));
}

TEST_CASE("classification: another task neither reads a run nor goes on with it") {
  TempFolder folder;
  RunConfig config = config_in(folder);
  config.train.length = steps(2);
  train(config);
  auto world = make_self_mesh().world;
  CHECK_THROWS_WITH(load_model(folder.path("run"), "", world),
                    Catch::Contains("was trained for the task classification, not "
                                    "language_modelling"));
  config.checkpoint.resume = folder.path("run");
  config.output = folder.path("other");
  CHECK_THROWS_WITH(train(config, 1, nullptr), Catch::Contains("the task classification"));
  config.data.validation = "";
  config.checkpoint.resume = "none";
  config.output = folder.path("text");
  train(config, 1, nullptr);  // the lines as a text
  config.checkpoint.resume = folder.path("text");
  config.output = folder.path("again");
  CHECK_THROWS_WITH(train(config), Catch::Contains("was trained for the task "
                                                   "language_modelling, not classification"));
}

TEST_CASE("classification: metrics are named after the task's") {
  TempFolder folder;
  RunConfig config = config_in(folder);
  config.train.length = steps(2);
  {
    MetricsWriter metrics(folder.path("metrics.jsonl"), -1);
    Trainer trainer(config, {.task = &kClassification}, make_self_mesh().world);
    trainer.observe(metrics);
    trainer.run();
  }
  std::string text = folder.read("metrics.jsonl");
  for (const char* key :
       {"\"validation_loss\":", "\"validation_accuracy\":", "\"best_validation_accuracy\":"})
    CHECK_THAT(text, Catch::Contains(key));
  CHECK_THAT(text, !Catch::Contains("perplexity") && !Catch::Contains("best_validation_loss"));
}

TEST_CASE("classification: what is wrong with the lines is told with their place") {
  TempFolder folder;
  auto error_of = [&](const std::string& text) {
    RunConfig config = config_in(folder);
    config.output = folder.path("none");
    config.data.train = folder.write("wrong.tsv", text);
    return message_of([&] { train(config); });
  };
  for (const char* text : {"0\tgood\n2\tbad\n", "0\tgood\nbad\n", "0\tgood\n0\t\n", "1\ta\n\tb\n"})
    CHECK_THAT(error_of(text), Catch::Contains("data.train: ") &&
                                   Catch::Contains("wrong.tsv:2: a class from 0 to 1"));
  CHECK_FALSE(std::filesystem::exists(folder.path("none")));
  RunConfig config = config_in(folder);
  config.model.tie_embeddings = false;
  CHECK_THROWS_WITH(train(config), Catch::Contains("model.tie_embeddings"));
}

TEST_CASE("classification: the plan counts lines; the model writes no text") {
  TempFolder folder;
  RunConfig config = config_in(folder);
  DataPlan plan = plan_labelled_data(config, *load_tokenizer("byte"));
  CHECK(plan.samples == 40);
  CHECK(plan.validation_samples == 13);
  config.model.vocabulary = 257;
  auto model = make_classifier(config, make_self_mesh());
  CHECK(dynamic_cast<AutoregressiveModel*>(model.get()) == nullptr);
  Decoder decoder(config.model, config.moe, make_self_mesh());
  CHECK(decoder.flops().per_token - model->flops().per_token == 2.0 * 16 * (257 - 2));
}

TEST_CASE("classification: trains and scores alike on a device that the host can't touch") {
  TempFolder folder;
  RunConfig config = config_in(folder);
  config.model.vocabulary = 257;
  auto figures_on = [&](Device device) {
    Mesh mesh = make_mesh(stage_through_host(make_self_communicator()), 1);
    auto model = make_classifier(config, mesh);
    ParameterStore store(*model, {.device = device});
    store.initialize(3);
    AdamW adamw(store, {});
    TrainingStep step(*model, kClassification.objective, store, adamw, mesh, {});
    LabelledLines data(config.data.train, *load_tokenizer("byte"), config.model.context, 2);
    EvaluationPass pass(data, 8, 0, 1);
    std::vector<double> figures;
    for (int64_t i = 0; i < pass.batches(); ++i) {
      Batch batch = pass.batch(i);
      StepResult result = step.run(std::span(&batch, 1), i, 0.01, false);
      figures.insert(figures.end(), {result.loss, result.grad_norm});
    }
    for (const Metric& metric : evaluate(kClassification, *model, pass, mesh, nullptr).metrics)
      figures.push_back(metric.value);
    return figures;
  };
  CHECK(figures_on(test::guarded_device()) == figures_on(Device{}));
}
