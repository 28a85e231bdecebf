#include "train/kept_tokenizer.h"

#include <algorithm>
#include <cerrno>
#include <sys/stat.h>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/io/atomic_file.h"
#include "train/resume.h"

namespace adagate {
namespace fs = std::filesystem;
namespace {

// What may define a tokenizer in a folder; which of them do is up to load_tokenizer().
constexpr const char* kFiles[] = {"tokenizer.json",
                                  "encoder.json",
                                  "vocab.bpe",
                                  "vocab.json",
                                  "merges.txt",
                                  "added_tokens.json",
                                  "special_tokens_map.json",
                                  "tokenizer_config.json"};

void copy_text(const fs::path& from, const fs::path& to) {
  write_file_atomically(to, read_text_file(from, "tokenizer"));
}

void copy_files(const fs::path& spec, const fs::path& to) {
  std::error_code error;
  if (!fs::is_directory(spec, error)) return copy_text(spec, to / kFiles[0]);
  for (const char* name : kFiles)
    if (fs::exists(spec / name, error)) copy_text(spec / name, to / name);
}

bool is_tokenizer(const fs::path& folder, const std::string& hash) {
  try {
    return hash_text(load_tokenizer(folder.string())->hash()) == hash;
  } catch (const Error&) {
    return false;
  }
}

bool is_own_file(const std::string& name) {
  return std::find(std::begin(kFiles), std::end(kFiles), final_name(name).value_or(name)) !=
         std::end(kFiles);
}

// Makes the folder, or takes the one that a killed run has left. False: it is somebody else's.
bool make_temporary(const fs::path& folder) {
  if (mkdir(folder.c_str(), 0777) == 0) return true;
  int made = errno;
  std::error_code error;
  if (made != EEXIST) fail_to_write(folder, made);
  if (!fs::is_directory(fs::symlink_status(folder, error))) return false;
  std::vector<fs::path> left;
  for (const auto& entry : fs::directory_iterator(folder, error)) left.push_back(entry.path());
  for (const fs::path& file : left)
    if (!is_own_file(file.filename().string())) return false;
  for (const fs::path& file : left) fs::remove(file, error);
  return true;
}

void remove_temporary(const fs::path& folder) {
  std::error_code error;
  for (const char* name : kFiles) fs::remove(folder / name, error);
  fs::remove(folder, error);  // stays while it holds anything else
}

}  // namespace

fs::path kept_tokenizer(const fs::path& run, const std::string& hash) {
  return run / ("tokenizer-" + hash);
}

void keep_tokenizer(const fs::path& run, const std::string& spec, const Tokenizer& tokenizer) {
  if (spec == "byte") return;
  std::string hash = hash_text(tokenizer.hash());
  fs::path kept = kept_tokenizer(run, hash), temporary = run / (".tokenizer-" + hash + ".tmp");
  std::error_code error;
  if (fs::exists(fs::symlink_status(kept, error))) return;
  if (make_temporary(temporary)) {
    copy_files(spec, temporary);
    if (is_tokenizer(temporary, hash)) {
      fs::rename(temporary, kept, error);
      if (!error) return sync_directory(run);
    }
    remove_temporary(temporary);
  }
  log::warn("the run keeps no copy of the tokenizer {}: where that is moved, --tokenizer names it",
            spec);
}

std::unique_ptr<Tokenizer> load_run_tokenizer(const fs::path& run, const std::string& spec,
                                              const std::string& hash) {
  std::string missing;
  try {
    auto named = load_tokenizer(spec);
    if (hash.empty() || hash_text(named->hash()) == hash) return named;
  } catch (const Error& error) {
    missing = error.what();
  }
  fs::path kept = kept_tokenizer(run, hash);
  std::error_code error;
  if (!hash.empty() && fs::exists(kept, error)) {
    auto copy = load_tokenizer(kept.string());
    check(hash_text(copy->hash()) == hash,
          "{} was changed: it is not the tokenizer that the run was trained with; name that one "
          "with --tokenizer",
          kept.string());
    return copy;
  }
  check(missing.empty(), "{} (looked for from {}), and {} holds no copy: name it with --tokenizer",
        missing, fs::current_path(error).string(), run.string());
  fail(
      "tokenizer {} is not the one that {} was trained with, of which it holds no copy: name that "
      "one with --tokenizer",
      spec, run.string());
}

}  // namespace adagate
