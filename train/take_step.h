// One step of a run, and what is told of it.
#pragma once

#include "train/calendar.h"
#include "train/observer.h"
#include "train/run.h"
#include "train/run_progress.h"

namespace adagate {

// Takes the next batches, updates the model, and moves the progress on by a step. Collective.
StepReport take_step(Run& run, const Calendar& calendar, RunProgress& progress);

}  // namespace adagate
