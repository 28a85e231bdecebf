// Tiny runs of the trainer, for tests that set one key and look at what it changes.
#pragma once

#include <string>
#include <vector>

#include "core/base/rng.h"
#include "data/byte_tokenizer.h"
#include "tests/support/temp_folder.h"
#include "train/config/config_writer.h"
#include "train/evaluation.h"
#include "train/task_table.h"
#include "train/text_data.h"
#include "train/trainer.h"

namespace adagate::tiny {

constexpr int64_t kContext = 8;  // tokens of a sample

// Letters of which no two samples are alike. With the end of the text the tokens make
// ceil(size / kContext) samples and `size` targets.
inline std::string letters(size_t size, uint64_t seed = 1) {
  Rng rng(seed, RngStream::test);
  std::string text;
  for (size_t i = 0; i < size; ++i) text += static_cast<char>('a' + rng.at(i)[0] % 26);
  return text;
}

inline Duration steps(double n) {
  return {n, Duration::Unit::steps};
}

// A dense model trained on a text of letters for 3 steps; no evaluations, no checkpoints.
inline RunConfig run_config(const TempFolder& folder, size_t text_size = 43) {
  RunConfig config;
  config.model.layers = 1;
  config.model.width = 8;
  config.model.heads = 2;
  config.model.context = kContext;
  config.model.initializer_range = 0.3;  // losses of samples that differ clearly
  config.data.train = folder.write("text.txt", letters(text_size));
  config.data.prefetch = 0;
  config.train.batch = 2;
  config.train.length = steps(3);
  config.train.evaluate_every = steps(0);
  config.train.optimizer.learning_rate = 0.01;
  config.train.schedule.warmup = steps(0);
  config.train.schedule.decay = "constant";
  config.checkpoint.every = steps(0);
  config.checkpoint.save_at_end = false;
  config.output = folder.path("run");
  return config;
}

// What a run told; `routing` is null in what is kept.
struct Watcher final : TrainingObserver {
  std::vector<StepReport> steps;
  std::vector<EvaluationReport> evaluations;
  std::vector<int64_t> saved;

  void on_step(const StepReport& report) override {
    steps.push_back(report);
    steps.back().routing = nullptr;
  }
  void on_evaluation(const EvaluationReport& report) override {
    evaluations.push_back(report);
    evaluations.back().routing = nullptr;
  }
  void on_checkpoint(const CheckpointReport& report) override { saved.push_back(report.step); }

  std::vector<double> losses() const {
    std::vector<double> all;
    for (const StepReport& step : steps) all.push_back(step.result.loss);
    return all;
  }
  std::vector<int64_t> samples() const {
    std::vector<int64_t> all;
    for (const StepReport& step : steps) all.push_back(step.result.samples);
    return all;
  }
};

// Metrics of an evaluation of language modelling.
inline Metrics language_figures(double loss) {
  double sum = 4 * loss;
  return metrics_of(kLanguageMetrics, language_metrics(std::span(&sum, 1), 4));
}

struct WatchedRun {
  Watcher seen;
  Trainer trainer;

  explicit WatchedRun(const RunConfig& config, TrainerOptions options = {})
      : trainer(config, std::move(options), make_self_mesh().world) {
    trainer.observe(seen);
  }
  WatchedRun(const RunConfig& config, bool overwrite)
      : WatchedRun(config, TrainerOptions{.overwrite = overwrite}) {}
  TrainingEnd run() { return trainer.run(); }
};

// A whole run; its output is free again afterwards.
inline Watcher watch(const RunConfig& config, bool overwrite = false) {
  WatchedRun watched(config, overwrite);
  watched.run();
  return watched.seen;
}

// The samples of a text, one token per byte.
inline std::unique_ptr<TokenDataset> samples_of(const std::string& text, const TempFolder& folder) {
  return open_text(text, "text", ByteTokenizer(), kContext, {.folder = folder.path() / "tokens"},
                   *make_self_mesh().world);
}

// Loss of samples [first, first + count).
inline EvaluationResult evaluate_range(Model& model, const Dataset& data, int64_t first,
                                       int64_t count) {
  DatasetRange range(data, first, count);
  return evaluate(kLanguageModelling, model, EvaluationPass(range, 8, 0, 1), make_self_mesh(),
                  nullptr);
}

}  // namespace adagate::tiny
