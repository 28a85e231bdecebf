#include "train/length_change.h"

#include <cmath>
#include <fmt/format.h>

#include "core/base/counted.h"

namespace adagate {
namespace {

ScheduleSpan span_for(const std::string& choice, const ScheduleSpan& saved, int64_t step,
                      double rate, int64_t total) {
  if (choice == "continue") return saved;
  if (choice == "constant") return {.first = step, .from = rate, .end = total, .held = true};
  if (choice == "rewarm") return {.first = step, .from = rate, .end = total};
  // rescale: what was held has no rise to stretch.
  return saved.held ? ScheduleSpan{.end = total}
                    : ScheduleSpan{.first = saved.first, .from = saved.from, .end = total};
}

bool same_schedule(const TrainConfig& a, const TrainConfig& b) {
  return a.optimizer.learning_rate == b.optimizer.learning_rate &&
         a.schedule.warmup == b.schedule.warmup && a.schedule.decay == b.schedule.decay &&
         a.schedule.final_ratio == b.schedule.final_ratio;
}

}  // namespace

LearningRate learning_rate_of(const TrainConfig& train, const StepSizes& sizes,
                              const ScheduleSpan& span) {
  return {train.optimizer.learning_rate, train.schedule.warmup.steps(sizes), span,
          train.schedule.decay, train.schedule.final_ratio};
}

LengthChange change_length(const TrainConfig& before, const ScheduleSpan& saved,
                           const TrainConfig& now, int64_t step, const StepSizes& sizes) {
  int64_t then = before.length.steps(sizes), total = now.length.steps(sizes);
  ScheduleSpan whole{.end = total};
  // A held rate has nothing of a schedule that another one could change.
  if (then == total) return {.span = saved.held && !same_schedule(before, now) ? whole : saved};
  if (step >= total) return {.span = saved};
  LearningRate old = learning_rate_of(before, sizes, saved);
  double last = old.at(std::max<int64_t>(0, step - 1));
  const std::string& choice = now.schedule.on_length_change;
  LengthChange change{.span = span_for(choice, saved, step, last, total)};
  double next = learning_rate_of(now, sizes, change.span).at(step);
  // Against the rate that the old schedule would have gone on with; what was asked for is none.
  change.jump =
      choice == "rescale" && std::abs(next - old.at(step)) > 1e-3 * std::max(next, old.at(step));
  if (!change.jump && (choice == "rescale" || change.span == saved)) return change;
  change.message = fmt::format(
      "train.length was {} and is {}: with train.schedule.on_length_change: {} the learning rate "
      "of step {} is {:.4g}, that of step {} was {:.4g}",
      counted(then, "step"), total, choice, step + 1, next, step, last);
  if (change.jump)
    change.message +=
        "; continue keeps to the old schedule, constant stays at the last rate, rewarm rises from "
        "it to the peak and decays to the new end";
  return change;
}

}  // namespace adagate
