// The text a run reads: token files, made of text files where need be.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "train/config/run_config.h"
#include "train/task_data.h"

namespace adagate {

// Throws Error unless `path` is a file with content that can be a text or token file.
void check_text_file(const std::string& path);

// The data set of `path`: a token file of `tokenizer`, or a text file, which the first of the ranks
// that share `cache` tokenizes once into it, under a name made of its content's and the tokenizer's
// hash. `key` names the config key in errors. Collective. Throws Error: missing, empty, made with
// another tokenizer, ...
std::unique_ptr<TokenDataset> open_text(const std::string& path, const std::string& key,
                                        const Tokenizer& tokenizer, int64_t sequence,
                                        const DataCache& cache, Communicator& world);

// Windows of model.context tokens of a text, each token's target the next one. Collective, with the
// errors of open_text.
RunData open_run_data(const RunConfig& config, const Tokenizer& tokenizer, const DataCache& cache,
                      Communicator& world);
RunData open_validation(const RunConfig& config, const Tokenizer& tokenizer, const DataCache& cache,
                        Communicator& world);
std::unique_ptr<Dataset> open_text_file(const std::string& path, const std::string& key,
                                        const RunConfig& config, const Tokenizer& tokenizer,
                                        const DataCache& cache, Communicator& world);

// The same before it is tokenized.
DataPlan plan_text_data(const RunConfig& config, const Tokenizer& tokenizer);

inline constexpr TaskData kTextData{.open = open_run_data,
                                    .open_validation = open_validation,
                                    .open_file = open_text_file,
                                    .plan = plan_text_data};

}  // namespace adagate
