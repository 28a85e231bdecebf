// What files that lie about a model hold. Each report is an object with "path" and "kind".
#pragma once

#include <filesystem>
#include <vector>

#include "train/report.h"

namespace adagate {

// Metadata, tensors and totals of a safetensors file of any types. Throws Error if it is not sound.
Report tensor_file_report(const std::filesystem::path& path);

// A list of the reports of tensor files; of one that is not sound its error, counted in `unsound`.
Report tensor_files_report(const std::vector<std::filesystem::path>& paths, int& unsound);

// Of a .json file: an index of shards (and which of them are missing), a model's configuration, a
// tokenizer, else its keys. Throws Error if it is not JSON, or a tokenizer that can't be used.
Report json_file_report(const std::filesystem::path& path);

// Of a tokenizer's file or folder.
Report tokenizer_report(const std::filesystem::path& path);

// Of any other file: a run's metrics, a text and in which form it lies. Throws Error with what else
// it is.
Report other_file_report(const std::filesystem::path& path);

}  // namespace adagate
