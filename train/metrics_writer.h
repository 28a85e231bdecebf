// metrics.jsonl: one JSON object per line, of every step, evaluation and checkpoint and of the end.
// docs/metrics.md describes the fields.
#pragma once

#include <chrono>
#include <cstdio>
#include <filesystem>

#include "train/observer.h"

namespace adagate {

class MetricsWriter final : public TrainingObserver {
 public:
  // Goes on with an existing file, without the lines of steps after `resumed_step` (a run that was
  // killed wrote them and the resumed one writes them again), and of going on from there. Throws
  // Error when it can't be written.
  MetricsWriter(const std::filesystem::path& path, int64_t resumed_step);
  ~MetricsWriter() override;

  void on_resume(const ResumeReport& report) override;
  void on_step(const StepReport& report) override;
  void on_evaluation(const EvaluationReport& report) override;
  void on_checkpoint(const CheckpointReport& report) override;
  void on_end(TrainingEnd end) override;

 private:
  // Seconds that the run has taken, with those of the stretches before a resume that are in the
  // file.
  double elapsed() const;
  void write(const std::string& line);

  std::filesystem::path path_;
  std::FILE* file_ = nullptr;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  double earlier_seconds_ = 0;
  int64_t step_ = 0;    // the last one told of
  bool wrote_ = false;  // anything in this stretch
};

}  // namespace adagate
