// Where a run stands, as far as its checkpoints tell.
#pragma once

#include <optional>

#include "train/best_metric.h"
#include "train/manifest.h"
#include "train/resume.h"
#include "train/task.h"

namespace adagate {

struct RunProgress {
  TrainingState state = {};
  bool evaluation_due = false;          // at this step; a stop may leave it to the run that goes on
  std::optional<BestMetric> best = {};  // of the evaluations so far
};

// That of a run which goes on from `saved`, or starts.
inline RunProgress progress_of(const std::optional<SavedRun>& saved, const Task& task) {
  if (!saved) return {};
  return {.state = saved->state,
          .evaluation_due = saved->record.evaluation_due,
          .best = read_best(saved->state.extra, best_kind(task))};
}

}  // namespace adagate
