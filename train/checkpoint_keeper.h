// Which checkpoints a run saves and lets go, so that there is always a good one to go back to.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace adagate {

// A step whose gradient or loss is not finite is skipped; the weights before it may be the cause.
// So nothing is saved on the way while steps are being skipped, and older checkpoints go only once
// a step from the newest one has succeeded. Every rank has one, told the same.
class CheckpointKeeper {
 public:
  static constexpr int64_t kMostSkipped = 20;  // in a row; then the run has diverged for good

  // `directory`: of the run's checkpoints, of which the newest `keep` stay (0: all). Only one rank
  // of a run `removes`.
  CheckpointKeeper(std::filesystem::path directory, int64_t keep, bool removes);

  // The run goes on from `checkpoint`, at which the last `skipped` steps were skipped.
  void resumed(const std::filesystem::path& checkpoint, int64_t skipped);
  // Throws Error that names the checkpoint to go back to when the run has diverged for good.
  void on_step(bool skipped);
  // One that is saved while steps are being skipped, at the end of a run, displaces no other.
  void saved(const std::filesystem::path& checkpoint);
  void ended();

  int64_t skipped_in_a_row() const { return skipped_; }

 private:
  void rotate();

  std::filesystem::path directory_;
  int64_t keep_ = 0;
  bool removes_ = false;
  int64_t skipped_ = 0;
  std::filesystem::path newest_, proven_;  // saved after a good step; a step from it succeeded
};

// Steps in a row that were skipped before the checkpoint was saved; 0 if it does not tell.
int64_t skipped_before(const std::filesystem::path& checkpoint);

}  // namespace adagate
