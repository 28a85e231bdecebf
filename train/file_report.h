// What files that lie about a model hold, in words and tables for a person.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace adagate {

// Metadata, tensors and totals of a safetensors file of any types. Throws Error if it is not sound.
std::string tensor_file_report(const std::filesystem::path& path);

// A report of each tensor file; of one that is not sound its error, counted in `unsound`.
std::string tensor_files_report(const std::vector<std::filesystem::path>& paths, int& unsound);

// Of a .json file: an index of shards (and which of them are missing), a model's configuration, a
// tokenizer, else its keys. Throws Error if it is not JSON, or a tokenizer that can't be used.
std::string json_file_report(const std::filesystem::path& path);

// Of a tokenizer's file or folder.
std::string tokenizer_report(const std::filesystem::path& path);

// Of any other file: a run's metrics, a text and in which form it lies. Throws Error with what else
// it is.
std::string other_file_report(const std::filesystem::path& path);

}  // namespace adagate
