// What a checkpoint tells of its run besides tensors, and whether a run may go on from it.
#pragma once

#include <filesystem>
#include <string>

#include "data/data_loader.h"
#include "data/tokenizer.h"
#include "train/checkpoint.h"
#include "train/config/config_changes.h"
#include "train/config/run_config.h"
#include "train/learning_rate.h"
#include "train/task.h"

namespace adagate {

// What a training run adds to the state of its checkpoints (TrainingState::extra).
struct RunRecord {
  int64_t seed = 0, dataset_size = 0;     // under which the position was counted
  BatchRule batch = {};                   // the same
  std::vector<int64_t> epoch_steps = {};  // DataState's
  int64_t skipped_steps = 0;              // of those that the state counts
  int64_t skipped_in_a_row = 0;           // the last of them, up to the saved step
  bool evaluation_due = false;            // at the saved step
  std::string data_hash;  // of the training text's tokens; empty: an earlier version saved none
  std::string validation_hash;  // the same of data.validation; empty: none, or an earlier version
  std::string tokenizer, tokenizer_hash;  // as the config named it, and of its content
  ScheduleSpan schedule;  // end 0: an earlier version saved none, it is train.length's
  // Of a task beside the table (TrainerOptions::task); empty: it is the config's.
  std::string own_task = {};

  void write(TrainingState& state) const;
  // Throws Error naming what the state lacks.
  static RunRecord read(const TrainingState& state);
};

// As a record holds hashes.
std::string hash_text(uint64_t hash);

// What a run goes on from.
struct SavedRun {
  std::filesystem::path checkpoint;
  std::string config_yaml;  // of the run that wrote it
  RunConfig config;         // the same, its vocabulary filled in
  TrainingState state;
  RunRecord record;  // of the state
  // Of its samples, i64 [samples], filled when its state is read; none: the shuffle's.
  Tensor order = {};
};

// The order of the samples, i64 [samples], as state of a checkpoint.
StateTensor order_state(Tensor order);

// Throws Error when a run of `config` with `tokenizer` and `task` can't go on from the checkpoint:
// what differs of tokenizer, task, model, data order or seed, and the remedy.
SavedRun open_saved_run(const std::filesystem::path& checkpoint, const RunConfig& config,
                        const Tokenizer& tokenizer, const Task& task);

// Throws Error unless the run that wrote the record, of `config`, was trained for `task`.
void check_task(const RunRecord& record, const RunConfig& config, const Task& task,
                const std::filesystem::path& checkpoint);

// Brings the loader, over a text with `data_hash`, to where the saved run stopped. Throws Error
// when that one read another text, or under another seed or batch.
void restore_position(const SavedRun& saved, const RunConfig& config, const std::string& data_hash,
                      DataLoader& loader);

// All keys in which `config` differs from the saved run's. Throws Error naming those that change
// what is computed and are not allowed to differ, with both values.
std::vector<ConfigChange> allowed_changes(const SavedRun& saved, const RunConfig& config,
                                          const StepSizes& sizes,
                                          const std::string& validation_hash,
                                          const AllowedChanges& allowed);

}  // namespace adagate
