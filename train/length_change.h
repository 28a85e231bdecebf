// What the learning rate does when a run goes on to another length than it was given at first.
#pragma once

#include <cstdint>
#include <string>

#include "train/config/run_config.h"
#include "train/learning_rate.h"

namespace adagate {

// The learning rate of a run's configuration over `span`.
LearningRate learning_rate_of(const TrainConfig& train, const StepSizes& sizes,
                              const ScheduleSpan& span);

struct LengthChange {
  ScheduleSpan span;         // of the run that goes on
  std::string message = {};  // for the user; empty: the rate goes on as it would have
  bool jump = false;         // the rate changes at once, and nobody has asked for it
};

// The run `before` stands at `step` and had `saved`; `now` is what it goes on with. Without a
// change of length the span stays; with one train.schedule.on_length_change decides.
LengthChange change_length(const TrainConfig& before, const ScheduleSpan& saved,
                           const TrainConfig& now, int64_t step, const StepSizes& sizes);

}  // namespace adagate
