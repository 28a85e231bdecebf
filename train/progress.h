// What a person watching sees: one line that renews itself on a terminal, plain lines elsewhere,
// warnings of experts without work, and a summary at the end.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "moe/expert_watch.h"
#include "moe/routing_report.h"
#include "train/console.h"
#include "train/observer.h"
#include "train/remaining_time.h"
#include "train/status_line.h"

namespace adagate {

class ProgressPrinter final : public TrainingObserver {
 public:
  // Writes to standard output, at most five lines of steps a second; off a terminal of every
  // `log_every`th step. `metrics` is the file that the summary names; empty: none.
  explicit ProgressPrinter(int64_t log_every, std::filesystem::path metrics = {});

  void on_step(const StepReport& report) override;
  void on_evaluation(const EvaluationReport& report) override;
  void on_checkpoint(const CheckpointReport& report) override;
  void on_end(TrainingEnd end) override;

 private:
  using Clock = std::chrono::steady_clock;

  std::vector<StatusField> fields_of(const StepReport& report) const;
  std::string summary() const;

  Console console_;
  int64_t log_every_;
  std::filesystem::path metrics_;
  RemainingTime time_;
  Clock::time_point start_ = Clock::now(), last_line_;
  // Of the steps seen here: without what a resumed run did before.
  int64_t steps_ = 0, tokens_ = 0;
  double step_seconds_ = 0;
  StepReport last_;  // without its routing
  std::optional<EvaluationReport> evaluation_;
  std::filesystem::path checkpoint_;
  ExpertWatch experts_;
  RoutingReport recent_;  // of the last steps, for the table at the end
};

// "1:02:03"
std::string format_duration(double seconds);
// "812", "3.4k", "1.2M"
std::string format_count(double value);

}  // namespace adagate
