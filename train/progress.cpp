#include "train/progress.h"

#include "core/base/counted.h"
#include "core/base/log.h"
#include "core/base/standard_output.h"

namespace adagate {
namespace {

constexpr int64_t kReportSteps = 50;  // steps behind the routing table at the end
constexpr std::chrono::milliseconds kBetweenLines{200};
constexpr double kMiB = 1 << 20;

// What fits no narrow terminal goes in this order, the first first.
enum Weight : int { kRate, kNorm, kShare, kSpeed, kRemaining, kLoss, kSkipped, kStep };

void tell(const ExpertEvent& event) {
  bool bad = event.kind == ExpertEvent::Kind::starved || event.kind == ExpertEvent::Kind::collapsed;
  if (bad) {
    log::warn("{}", describe(event));
  } else {
    log::info("{}", describe(event));
  }
}

std::string figure(const char* title, const std::string& text) {
  return fmt::format("{:<16}{}\n", title, text);
}

// "1.7500 at step 7000": of another metric than the loss with its name.
std::string best_text(const BestMetric& best) {
  std::string_view name = best.kind.name == kLossMetric ? "" : best.kind.name;
  return fmt::format("{}{}{:.{}f} at step {}", name, name.empty() ? "" : " ", best.value,
                     best.kind.digits, best.step);
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

ProgressPrinter::ProgressPrinter(int64_t log_every, std::filesystem::path metrics)
    : log_every_(log_every), metrics_(std::move(metrics)) {}

std::vector<StatusField> ProgressPrinter::fields_of(const StepReport& r) const {
  double remaining =
      time_.seconds(r.total_steps - r.step, r.evaluations_to_come, r.checkpoints_to_come);
  std::vector<StatusField> fields{
      {fmt::format("step {:>6}/{}", r.step, r.total_steps), kStep},
      {fmt::format("loss {:.4f}", r.result.loss), kLoss},
      {fmt::format("lr {:.2e}", r.learning_rate), kRate},
      {fmt::format("norm {:.3f}", r.result.grad_norm), kNorm},
      {fmt::format("{} tokens/s", format_count(time_.tokens_per_second())), kSpeed}};
  if (r.routing) {
    double share = 100 * single_expert_share(*r.routing);
    fields.push_back({fmt::format("1-expert {:.1f} %", share), kShare});
  }
  if (r.result.skipped) fields.push_back({"SKIPPED (gradient not finite)", kSkipped});
  fields.push_back({fmt::format("ETA {}", format_duration(remaining)), kRemaining});
  return fields;
}

void ProgressPrinter::on_step(const StepReport& r) {
  time_.add_step(r.seconds, r.result.tokens);
  bool first = steps_ == 0, last = r.step == r.total_steps;
  ++steps_;
  tokens_ += r.result.tokens;
  step_seconds_ += r.seconds;
  last_ = r;
  last_.routing = nullptr;
  if (r.routing) {
    // Counted back from the end, where the last stretch is a whole one.
    if ((r.total_steps - r.step + 1) % kReportSteps == 0) recent_.clear();
    recent_.add(*r.routing);
    for (const ExpertEvent& event : experts_.add(*r.routing)) tell(event);
  }
  auto now = Clock::now();
  bool due = now - last_line_ >= kBetweenLines;
  if (!console_.renews()) due = due && r.step % log_every_ == 0;
  if (!due && !first && !last && !r.result.skipped) return;
  std::vector<StatusField> fields = fields_of(r);
  if (console_.renews() && !r.result.skipped) {
    console_.renew(status_line(fields, console_.width()));
  } else {
    console_.print(status_line(fields));
  }
  last_line_ = now;
}

void ProgressPrinter::on_evaluation(const EvaluationReport& r) {
  time_.add_evaluation(r.seconds);
  evaluation_ = r;
  evaluation_->routing = nullptr;
  std::string line = fmt::format("step {:>6}  validation", r.step);
  for (size_t m = 0; m < r.metrics.size(); ++m)
    line += (m == 0 ? " " : "  ") + text_of(r.metrics[m]);
  if (r.routing) {
    line += fmt::format("  1-expert {:.1f} %", 100 * single_expert_share(*r.routing));
  }
  console_.print(line);
}

void ProgressPrinter::on_checkpoint(const CheckpointReport& r) {
  time_.add_checkpoint(r.seconds);
  checkpoint_ = r.path;
  console_.print(fmt::format("step {:>6}  saved {}", r.step, r.path.string()));
}

std::string ProgressPrinter::summary() const {
  double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
  std::string text = figure(
      "steps", fmt::format("{} of {}{}", last_.step, last_.total_steps,
                           steps_ == last_.step ? "" : fmt::format(", {} of them now", steps_)));
  text += figure("time", fmt::format("{}, {} of it in steps", format_duration(seconds),
                                     format_duration(step_seconds_)));
  text +=
      figure("tokens", fmt::format("{}, {} a second", format_count(static_cast<double>(tokens_)),
                                   format_count(static_cast<double>(tokens_) / step_seconds_)));
  text += figure("loss", fmt::format("{:.4f}", last_.result.loss));
  if (evaluation_) {
    text += figure("validation loss",
                   fmt::format("{:.4f} at step {}", evaluation_->loss(), evaluation_->step));
  }
  if (auto best = evaluation_ ? evaluation_->best : last_.best) {
    text += figure("best", best_text(*best));
  }
  text += figure("peak memory", fmt::format("{:.0f} MiB of tensors on rank 0",
                                            static_cast<double>(last_.peak_memory) / kMiB));
  if (std::string starved = experts_.starved(); !starved.empty()) {
    text += figure("starved experts", starved);
  }
  if (!metrics_.empty()) text += figure("metrics", metrics_.string());
  if (!checkpoint_.empty()) text += figure("checkpoint", checkpoint_.string());
  return text;
}

void ProgressPrinter::on_end(TrainingEnd end) {
  console_.keep();
  if (end == TrainingEnd::loss_reached) console_.print("the loss asked for is reached");
  if (end == TrainingEnd::stopped_by_signal) {
    console_.print("stopped by a signal; go on with --resume=auto");
  }
  if (recent_.steps() > 0) {
    console_.print(fmt::format("routing of the last {}\n{}", counted(recent_.steps(), "step"),
                               recent_.table()));
  }
  if (steps_ > 0) console_.print(summary());
}

}  // namespace adagate
