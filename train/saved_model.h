// A trained model read from a checkpoint, for evaluation and generation.
#pragma once

#include <filesystem>
#include <memory>

#include "core/nn/parameter_store.h"
#include "data/tokenizer.h"
#include "train/checkpoint.h"
#include "train/config/run_config.h"
#include "train/resume.h"
#include "train/task.h"

namespace adagate {

struct SavedModel {
  RunConfig config;           // of the run that wrote it
  std::filesystem::path run;  // where it lies now
  Manifest manifest;
  RunRecord record;  // of the manifest
  const Task* task = nullptr;
  Mesh mesh;
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<Model> model;
  std::unique_ptr<ParameterStore> store;
};

// `path`: a checkpoint, or the output directory of a run, whose newest checkpoint is taken. The
// model is spread over `world` with as much expert parallelism as the number of ranks allows.
// `tokenizer`, if not empty, names it in place of the one in the config or the run's copy of that;
// `own` is the task of a run that was trained for one beside the table (TrainerOptions::task).
// `device`: where the model computes (parallel/rank_device.h).
// Collective. Throws Error when the checkpoint is not complete, or tokenizer or task another.
SavedModel load_model(const std::filesystem::path& path, const std::string& tokenizer,
                      std::shared_ptr<Communicator> world, const Task* own = nullptr,
                      std::string_view device = "cpu");

// The output directory that a checkpoint lies in.
std::filesystem::path run_of_checkpoint(const std::filesystem::path& checkpoint);

// The checkpoint that `path` means.
std::filesystem::path resolve_checkpoint(const std::filesystem::path& path);

}  // namespace adagate
