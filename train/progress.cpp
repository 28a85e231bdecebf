#include "train/progress.h"

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <unistd.h>

#include "core/base/standard_output.h"

namespace adagate {
namespace {

constexpr int64_t kReportSteps = 50;  // steps behind the routing table at the end
constexpr double kSmoothing = 0.1;
constexpr std::chrono::milliseconds kBetweenLines{200};

// mpirun gives its ranks a pseudo-terminal whatever its own output is; what counts is the latter.
bool writes_to_terminal() {
  if (!isatty(STDOUT_FILENO)) return false;
  if (!std::getenv("OMPI_COMM_WORLD_SIZE")) return true;
  std::error_code error;
  auto target = std::filesystem::read_symlink(fmt::format("/proc/{}/fd/1", getppid()), error);
  return !error &&
         (target.string().rfind("/dev/pts/", 0) == 0 || target.string().rfind("/dev/tty", 0) == 0);
}

double smoothed(double average, double value) {
  return average == 0 ? value : average + kSmoothing * (value - average);
}

std::string step_line(const StepReport& r, double rate, double step_seconds) {
  double remaining = static_cast<double>(r.total_steps - r.step) * step_seconds;
  std::string line = fmt::format("step {:>6}/{}  loss {:.4f}  lr {:.2e}  norm {:.3f}  {} tokens/s",
                                 r.step, r.total_steps, r.result.loss, r.learning_rate,
                                 r.result.grad_norm, format_count(rate));
  if (r.routing) {
    line += fmt::format("  1-expert {:.1f} %", 100 * single_expert_share(*r.routing));
  }
  if (r.result.skipped) line += "  SKIPPED (gradient not finite)";
  return line + fmt::format("  ETA {}", format_duration(remaining));
}

}  // namespace

std::string format_duration(double seconds) {
  auto s = static_cast<int64_t>(std::max(0.0, seconds) + 0.5);
  return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
}

std::string format_count(double value) {
  if (value >= 1e9) return fmt::format("{:.2f}G", value * 1e-9);
  if (value >= 1e6) return fmt::format("{:.2f}M", value * 1e-6);
  if (value >= 1e4) return fmt::format("{:.1f}k", value * 1e-3);
  return fmt::format("{:.0f}", value);
}

ProgressPrinter::ProgressPrinter(int64_t log_every)
    : log_every_(log_every), terminal_(writes_to_terminal()) {}

void ProgressPrinter::print_line(const std::string& text) {
  finish_live_line();
  write_output(text + "\n");
}

void ProgressPrinter::finish_live_line() {
  if (live_) write_output("\n");
  live_ = false;
}

void ProgressPrinter::on_step(const StepReport& r) {
  rate_ = smoothed(rate_, static_cast<double>(r.result.tokens) / r.seconds);
  step_seconds_ = smoothed(step_seconds_, r.seconds);
  if (first_step_ < 0) first_step_ = r.step;
  if (r.routing && r.step + kReportSteps > r.total_steps) recent_.add(*r.routing);
  std::string line = step_line(r, rate_, step_seconds_);
  if (terminal_) {
    write_output("\r\x1b[K" + line);
    live_ = true;
    return;
  }
  auto now = std::chrono::steady_clock::now();
  bool due = r.step % log_every_ == 0 && now - last_line_ >= kBetweenLines;
  if (due || r.step == first_step_ || r.step == r.total_steps || r.result.skipped) {
    print_line(line);
    last_line_ = now;
  }
}

void ProgressPrinter::on_evaluation(const EvaluationReport& r) {
  std::string line = fmt::format("step {:>6}  validation loss {:.4f}  perplexity {:.2f}", r.step,
                                 r.loss, std::exp(r.loss));
  if (r.routing) {
    line += fmt::format("  1-expert {:.1f} %", 100 * single_expert_share(*r.routing));
  }
  print_line(line);
}

void ProgressPrinter::on_checkpoint(int64_t step, const std::filesystem::path& path) {
  print_line(fmt::format("step {:>6}  saved {}", step, path.string()));
}

void ProgressPrinter::on_end(TrainingEnd end) {
  if (end == TrainingEnd::loss_reached) print_line("the loss asked for is reached");
  if (end == TrainingEnd::stopped_by_signal) {
    print_line("stopped by a signal; go on with --resume=auto");
  }
  if (recent_.steps() > 0) {
    print_line(fmt::format("routing of the last {} steps\n{}", recent_.steps(), recent_.table()));
  }
  finish_live_line();
}

}  // namespace adagate
