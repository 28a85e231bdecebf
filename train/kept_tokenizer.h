// The copy of its tokenizer that a run carries, so that it can be moved.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "data/tokenizer.h"

namespace adagate {

// RUN/tokenizer-<hash>: a folder with the files of the tokenizer of that hash.
std::filesystem::path kept_tokenizer(const std::filesystem::path& run, const std::string& hash);

// Copies the files of `tokenizer`, which was loaded from `spec`, unless they are there. What can't
// be copied so that it is the same tokenizer is left out with a warning. Throws Error where the
// folder can't be written.
void keep_tokenizer(const std::filesystem::path& run, const std::string& spec,
                    const Tokenizer& tokenizer);

// The tokenizer of `hash` that a run was trained with: `spec` if that still is it, else the run's
// copy. `hash` empty: an earlier version told none, `spec` is taken. Throws Error naming the
// remedy.
std::unique_ptr<Tokenizer> load_run_tokenizer(const std::filesystem::path& run,
                                              const std::string& spec, const std::string& hash);

}  // namespace adagate
