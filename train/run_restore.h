// Brings a run to where a saved one stopped.
#pragma once

#include <filesystem>
#include <vector>

#include "train/calendar.h"
#include "train/resume.h"

namespace adagate {

struct Run;

// Fills model, optimizer and the caller's state from the checkpoint. Collective. Throws Error where
// the run can't go on from it.
SavedRun restore_states(const std::filesystem::path& checkpoint, Run& run);

// Has the calendar follow the saved run's. Logs, and returns, what is configured otherwise since
// then. Collective. Throws Error where that changes what is computed and isn't allowed.
std::vector<ConfigChange> follow_saved_run(const Run& run, Calendar& calendar);

}  // namespace adagate
