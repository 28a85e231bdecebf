// What a person watching sees: one line that renews itself on a terminal, plain lines elsewhere.
#pragma once

#include <chrono>
#include <string>

#include "moe/routing_report.h"
#include "train/observer.h"

namespace adagate {

class ProgressPrinter final : public TrainingObserver {
 public:
  // Writes to standard output; off a terminal a line every `log_every` steps, at most five a
  // second: a launcher that ends its job stops reading, and ranks that wait for it cannot save.
  explicit ProgressPrinter(int64_t log_every);

  void on_step(const StepReport& report) override;
  void on_evaluation(const EvaluationReport& report) override;
  void on_checkpoint(int64_t step, const std::filesystem::path& path) override;
  void on_end(TrainingEnd end) override;

 private:
  void print_line(const std::string& text);
  void finish_live_line();

  int64_t log_every_;
  bool terminal_;
  bool live_ = false;        // a renewing line stands on the terminal
  double rate_ = 0;          // smoothed tokens per second
  double step_seconds_ = 0;  // smoothed
  int64_t first_step_ = -1;
  std::chrono::steady_clock::time_point last_line_;  // off a terminal
  RoutingReport recent_;                             // of the last steps, for the table at the end
};

// "1:02:03"
std::string format_duration(double seconds);
// "812", "3.4k", "1.2M"
std::string format_count(double value);

}  // namespace adagate
