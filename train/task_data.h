// Where the samples of a task come from, and how a configuration divides them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/sampler.h"
#include "data/tokenizer.h"
#include "parallel/communicator.h"

namespace adagate {

struct RunConfig;

// Which ranks see the same cache folder: all of them, or those of one node.
enum class CacheShared { by_all, by_node };

// Where files of a run's data are kept in the form that is read fast.
struct DataCache {
  std::filesystem::path folder;
  CacheShared shared = CacheShared::by_all;
  // What this rank makes below the folder is added here, in that order, if it is wanted.
  std::vector<std::filesystem::path>* made = nullptr;
};

// What a run trains on and is evaluated on.
struct RunData {
  std::vector<std::unique_ptr<Dataset>> sources;  // behind the two below
  std::unique_ptr<Dataset> train;
  std::unique_ptr<Dataset> validation;  // null: none
  // Of the content of data.train and of data.validation, as far as they are opened; else empty.
  std::string train_hash, validation_hash;
};

// A file that data.train or data.validation names. -1: not known before it is prepared.
struct FilePlan {
  std::string path;
  bool is_token_file = false;
  int64_t bytes = 0;
  int64_t tokens = -1;
};

// -1: not known before the data is prepared.
struct DataPlan {
  FilePlan train;
  std::optional<FilePlan> validation = {};
  int64_t samples = -1, validation_samples = -1;  // in one epoch, in one evaluation
};

struct TaskData {
  // data.train, and data.validation or the share of data.train that is held out. Collective. Throws
  // the same Error on all ranks, naming the key, when they can't be read.
  RunData (*open)(const RunConfig& config, const Tokenizer& tokenizer, const DataCache& cache,
                  Communicator& world) = nullptr;
  // Its validation alone, and only what that is read from. Collective.
  RunData (*open_validation)(const RunConfig& config, const Tokenizer& tokenizer,
                             const DataCache& cache, Communicator& world) = nullptr;
  // Any file of the task's form; `key` names in errors what named it. Collective.
  std::unique_ptr<Dataset> (*open_file)(const std::string& path, const std::string& key,
                                        const RunConfig& config, const Tokenizer& tokenizer,
                                        const DataCache& cache, Communicator& world) = nullptr;
  // Checks the files without preparing or writing anything. Throws Error naming the key.
  DataPlan (*plan)(const RunConfig& config, const Tokenizer& tokenizer) = nullptr;
};

// Of `samples` of data.train, those at its end that data.validation_share holds out; at least 1.
// Throws Error when none would be left to train on.
int64_t held_out_samples(const RunConfig& config, int64_t samples);

// How the samples are gathered into steps: batches of train.batch.
SamplerConfig sampler_config(const RunConfig& config);

// Fills in model.vocabulary if it is 0; throws Error if it is smaller than the tokenizer's.
void check_vocabulary(RunConfig& config, const Tokenizer& tokenizer);

}  // namespace adagate
