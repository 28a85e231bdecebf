#include "train/checkpoint_keeper.h"

#include <utility>

#include "core/base/error.h"
#include "train/checkpoint.h"
#include "train/resume.h"
#include "train/run_directory.h"

namespace adagate {
namespace fs = std::filesystem;

CheckpointKeeper::CheckpointKeeper(fs::path directory, int64_t keep, bool removes)
    : directory_(std::move(directory)), keep_(keep), removes_(removes) {}

void CheckpointKeeper::resumed(const fs::path& checkpoint, int64_t skipped) {
  skipped_ = skipped;
  newest_ = checkpoint;
  while (!newest_.empty() && skipped_before(newest_) > 0) {
    auto step = step_in(newest_.filename().string());
    newest_ = step ? find_latest(newest_.parent_path(), *step).value_or(fs::path()) : fs::path();
  }
}

void CheckpointKeeper::on_step(bool skipped) {
  if (!skipped) {
    skipped_ = 0;
    if (newest_ == proven_) return;
    proven_ = newest_;
    return rotate();
  }
  if (++skipped_ < kMostSkipped) return;
  const fs::path& good = proven_.empty() ? newest_ : proven_;
  std::string remedy = "start anew with a lower train.optimizer.learning_rate";
  if (!good.empty()) {
    remedy = fmt::format(
        "go back to {} with a lower train.optimizer.learning_rate (--resume={} --set "
        "train.optimizer.learning_rate=...)",
        good.filename().string(), good.string());
  }
  fail(
      "the gradient or the loss was not finite in {} steps in a row: the training has diverged; {}",
      skipped_, remedy);
}

void CheckpointKeeper::saved(const fs::path& checkpoint) {
  if (skipped_ == 0) newest_ = checkpoint;
}

void CheckpointKeeper::ended() {
  if (skipped_ == 0 && newest_ != proven_) rotate();
}

void CheckpointKeeper::rotate() {
  if (removes_) rotate_checkpoints(directory_, keep_, newest_);
}

int64_t skipped_before(const fs::path& checkpoint) {
  try {
    return RunRecord::read(read_manifest(checkpoint).state).skipped_in_a_row;
  } catch (const Error&) {
    return 0;  // of an earlier version, or damaged: whoever loads it says so
  }
}

}  // namespace adagate
