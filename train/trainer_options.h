// What a caller of the trainer may ask for besides the configuration.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/nn/state.h"
#include "data/dataset.h"
#include "data/epoch_plan.h"
#include "train/task.h"

namespace adagate {

struct TrainerOptions {
  // Text of the effective config, stored with every checkpoint; empty: made from the config.
  std::string config_yaml = {};
  // An output directory that holds checkpoints of another run, or of later steps than the one gone
  // back to, is an error unless they and their metrics may go.
  bool overwrite = false;
  // The files that the config was read from: none of them is written over.
  std::vector<std::filesystem::path> config_files = {};
  // Keys and sections that may differ from those of the run gone on from although they change what
  // is computed.
  std::vector<std::string> allowed_changes = {};
  // State of the caller's, "run/" and a name, that is saved with the run's and filled where the run
  // goes on. On every rank the same names.
  std::vector<StateTensor> states = {};
  // What a step takes, in place of train.batch samples. With batches by tokens epochs differ in
  // steps: train.length and the schedule are laid over the steps of all epochs as they are known,
  // those to come in the shuffle's order or the one that stays, and laid anew at each epoch's
  // start.
  std::optional<BatchRule> batch = {};
  // Makes what is trained on of the windows of data.train; null: these themselves are.
  std::function<std::unique_ptr<Dataset>(const Dataset& windows)> samples = {};
  // In place of the one that the key `task` names: one that is not in the table. Checkpoints say
  // so, and only the same task goes on from them. Must outlive the run.
  const Task* task = nullptr;
};

}  // namespace adagate
