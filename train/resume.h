// What a checkpoint tells of its run besides tensors, and whether a run may go on from it.
#pragma once

#include <filesystem>
#include <string>

#include "data/data_loader.h"
#include "data/tokenizer.h"
#include "train/checkpoint.h"
#include "train/config/run_config.h"

namespace adagate {

// What a training run adds to the state of its checkpoints (TrainingState::extra).
struct RunRecord {
  int64_t seed = 0, dataset_size = 0, global_batch = 0;  // under which the position was counted
  int64_t skipped_steps = 0;                             // of those that the state counts
  int64_t skipped_in_a_row = 0;                          // the last of them, up to the saved step
  bool evaluation_due = false;                           // at the saved step
  std::string data_hash;  // of the training text's tokens; empty: an earlier version saved none
  std::string tokenizer, tokenizer_hash;  // as the config named it, and of its content

  void write(TrainingState& state) const;
  // Throws Error naming what the state lacks.
  static RunRecord read(const TrainingState& state);
};

// As a record holds hashes.
std::string hash_text(uint64_t hash);

// Throws Error unless a run of `config` with `tokenizer` may go on from the checkpoint, as far as
// neither its tensors nor its position would show it: the first key that differs, and the remedy.
void check_resumable(const std::filesystem::path& checkpoint, const RunConfig& config,
                     const Tokenizer& tokenizer);

// Brings the loader, over a text with `data_hash`, to where the saved run stopped. Throws Error
// when that one read another text, or under another seed or batch.
void restore_position(const TrainingState& state, const RunConfig& config,
                      const std::string& data_hash, DataLoader& loader);

}  // namespace adagate
