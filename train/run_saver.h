// The checkpoints that a run writes: when, with what, and which of them stay.
#pragma once

#include <cstdint>
#include <optional>

#include "train/calendar.h"
#include "train/checkpoint_keeper.h"
#include "train/observer.h"
#include "train/run.h"
#include "train/run_progress.h"

namespace adagate {

class RunSaver {
 public:
  // Both must outlive this.
  RunSaver(const Run& run, const Calendar& calendar);

  // After every step. Throws Error when the run has diverged for good.
  void on_step(int64_t step, bool skipped);
  // Whether to save after this step, which isn't the last: put off while steps are being skipped.
  bool due() const { return due_ && keeper_.skipped_in_a_row() == 0; }
  // What the checkpoint of this step says has changed since: it is written anew.
  void outdated() { saved_step_ = -1; }
  // None where the step is saved already. Collective.
  std::optional<CheckpointReport> save(RunProgress& progress);
  void ended() { keeper_.ended(); }

 private:
  RunRecord record_of(const RunProgress& progress, const DataState& data) const;

  const Run& run_;
  const Calendar& calendar_;
  CheckpointKeeper keeper_;
  int64_t saved_step_ = -1;
  bool due_ = false;
};

}  // namespace adagate
