// The text a run reads: its tokenizer, and token files made of text files where need be.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/sampler.h"
#include "data/tokenizer.h"
#include "parallel/communicator.h"
#include "train/config/run_config.h"

namespace adagate {

// Which ranks see the same cache folder: all of them, or those of one node.
enum class CacheShared { by_all, by_node };

// Throws Error unless `path` is a file with content that can be a text or token file.
void check_text_file(const std::string& path);

// Of `samples` of data.train, those at its end that data.validation_share holds out; at least 1.
// Throws Error when none would be left to train on.
int64_t held_out_samples(const RunConfig& config, int64_t samples);

// How the samples are gathered into steps: batches of train.batch.
SamplerConfig sampler_config(const RunConfig& config);

// Fills in model.vocabulary if it is 0; throws Error if it is smaller than the tokenizer's.
void check_vocabulary(RunConfig& config, const Tokenizer& tokenizer);

// The data set of `path`: a token file of `tokenizer`, or a text file, which the first of the ranks
// that share `cache` tokenizes once into it, under a name made of its content's and the tokenizer's
// hash. `key` names the config key in errors. Collective. Throws Error: missing, empty, made with
// another tokenizer, ... What this rank makes below `cache` is added to `made`, in that order.
std::unique_ptr<TokenDataset> open_text(const std::string& path, const std::string& key,
                                        const Tokenizer& tokenizer, int64_t sequence,
                                        const std::filesystem::path& cache, Communicator& world,
                                        CacheShared shared = CacheShared::by_all,
                                        std::vector<std::filesystem::path>* made = nullptr);

// What a run trains on and is evaluated on.
struct RunData {
  std::unique_ptr<TokenDataset> train_text, validation_text;  // behind the two below
  std::unique_ptr<Dataset> train;
  std::unique_ptr<Dataset> validation;  // null: none
};

// data.train, and data.validation or the last data.validation_share of data.train's samples.
// Collective, with the errors of open_text.
RunData open_run_data(const RunConfig& config, const Tokenizer& tokenizer,
                      const std::filesystem::path& cache, Communicator& world,
                      CacheShared shared = CacheShared::by_all,
                      std::vector<std::filesystem::path>* made = nullptr);

// Its validation alone, and only the text behind that. Collective.
RunData open_validation(const RunConfig& config, const Tokenizer& tokenizer,
                        const std::filesystem::path& cache, Communicator& world,
                        CacheShared shared = CacheShared::by_all);

}  // namespace adagate
