// How long a run is, what is due at which of its steps, and the learning rate of each.
#pragma once

#include <cstdint>
#include <optional>

#include "data/data_loader.h"
#include "train/config/run_config.h"
#include "train/learning_rate.h"
#include "train/length_change.h"
#include "train/resume.h"

namespace adagate {

// Steps count from 1 where something is due after them, from 0 where they have a rate.
class Calendar {
 public:
  // `loader` tells the steps of epochs, and must outlive this.
  Calendar(const RunConfig& config, const DataLoader& loader);

  // That of a run which goes on from `saved` after `step` steps.
  LengthChange follow(const SavedRun& saved, int64_t step);
  // Laid anew over the steps of all epochs as they are known now, after `step` of them, if epochs
  // differ. The step to come is taken in any case.
  void renew(int64_t step);

  const StepSizes& sizes() const { return sizes_; }
  const ScheduleSpan& schedule() const { return schedule_; }
  int64_t total_steps() const { return total_steps_; }
  int64_t warmup_steps() const { return config_.train.schedule.warmup.steps(sizes_); }
  double learning_rate(int64_t step) const { return learning_rate_->at(step); }

  bool evaluation_due(int64_t step) const;
  bool checkpoint_due(int64_t step) const;
  // From `step` on, its own included.
  int64_t evaluations_to_come(int64_t step) const;
  int64_t checkpoints_to_come(int64_t step) const;

 private:
  void set_schedule(const ScheduleSpan& schedule);

  RunConfig config_;
  StepSizes sizes_;
  ScheduleSpan schedule_;
  int64_t total_steps_ = 0;
  std::optional<LearningRate> learning_rate_;
};

}  // namespace adagate
