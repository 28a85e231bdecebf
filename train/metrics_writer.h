// metrics.jsonl: one JSON object per line, of every step and every evaluation.
#pragma once

#include <cstdio>
#include <filesystem>

#include "train/observer.h"

namespace adagate {

class MetricsWriter final : public TrainingObserver {
 public:
  // Goes on with an existing file, without the lines of steps after `resumed_step` (a run that was
  // killed wrote them and the resumed one writes them again). Throws Error when it can't be
  // written.
  MetricsWriter(const std::filesystem::path& path, int64_t resumed_step);
  ~MetricsWriter() override;

  void on_step(const StepReport& report) override;
  void on_evaluation(const EvaluationReport& report) override;

 private:
  void write(const std::string& line);

  std::filesystem::path path_;
  std::FILE* file_ = nullptr;
};

}  // namespace adagate
