#include "train/calendar.h"

#include <algorithm>

namespace adagate {
namespace {

StepSizes sizes_of(const RunConfig& config, const DataLoader& loader) {
  StepSizes sizes{config.train.batch * config.model.context, loader.steps_in(0)};
  if (!loader.even_epochs())
    sizes.uneven = UnevenEpochs{loader.tokens_per_epoch(),
                                [&loader](int64_t epoch) { return loader.steps_in(epoch); }};
  return sizes;
}

}  // namespace

Calendar::Calendar(const RunConfig& config, const DataLoader& loader)
    : config_(config),
      sizes_(sizes_of(config, loader)),
      total_steps_(config.train.length.steps(sizes_)) {
  set_schedule({.end = total_steps_});
}

void Calendar::set_schedule(const ScheduleSpan& schedule) {
  schedule_ = schedule;
  learning_rate_.emplace(learning_rate_of(config_.train, sizes_, schedule_));
}

LengthChange Calendar::follow(const SavedRun& saved, int64_t step) {
  ScheduleSpan span = saved.record.schedule;
  if (span.end == 0) span.end = saved.config.train.length.steps(sizes_);
  LengthChange change = change_length(saved.config.train, span, config_.train, step, sizes_);
  set_schedule(change.span);
  return change;
}

void Calendar::renew(int64_t step) {
  if (!sizes_.uneven) return;
  int64_t total = std::max(config_.train.length.steps(sizes_), step + 1);
  ScheduleSpan schedule = schedule_;
  if (schedule.end == total_steps_) schedule.end = total;
  total_steps_ = total;
  set_schedule(schedule);
}

bool Calendar::evaluation_due(int64_t step) const {
  if (!config_.data.has_validation()) return false;
  return step == total_steps_ || times_due(config_.train.evaluate_every, sizes_, step, step) > 0;
}

bool Calendar::checkpoint_due(int64_t step) const {
  return times_due(config_.checkpoint.every, sizes_, step, step) > 0;
}

int64_t Calendar::evaluations_to_come(int64_t step) const {
  if (!config_.data.has_validation()) return 0;
  const Duration& every = config_.train.evaluate_every;
  int64_t at_end = times_due(every, sizes_, total_steps_, total_steps_) == 0;
  return times_due(every, sizes_, step, total_steps_) + at_end;
}

int64_t Calendar::checkpoints_to_come(int64_t step) const {
  return times_due(config_.checkpoint.every, sizes_, step, total_steps_ - 1) +
         config_.checkpoint.save_at_end;
}

}  // namespace adagate
