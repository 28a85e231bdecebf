#include "train/run_directory.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <fcntl.h>
#include <fmt/format.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/error.h"
#include "core/io/atomic_file.h"

namespace adagate {
namespace fs = std::filesystem;
namespace {

// The number at the start of `text`, which is shortened by it.
std::optional<int64_t> take_number(std::string_view& text) {
  int64_t number = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc()) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return number;
}

bool take(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

// Step of a name that half_written_name() gives.
std::optional<int64_t> half_written_step_in(const std::string& name) {
  std::string_view text = name;
  if (!take(text, ".step-")) return std::nullopt;
  auto step = take_number(text);
  return step && name == half_written_name(*step) ? step : std::nullopt;
}

bool is_shard_name(std::string_view name) {
  std::string_view text = name;
  if (!take(text, "shard-")) return false;
  auto shard = take_number(text);
  if (!shard || !take(text, "-of-")) return false;
  auto shards = take_number(text);
  return shards && name == shard_name(*shard, *shards);
}

// A manifest, a shard, or what a kill has left of the writing of one.
bool is_checkpoint_file(const std::string& name) {
  std::string final = final_name(name).value_or(name);
  return final == kManifestFile || is_shard_name(final);
}

std::vector<std::string> names_in(const fs::path& directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory, error))
    names.push_back(entry.path().filename().string());
  return names;
}

bool is_link(const fs::path& path) {
  std::error_code error;
  return fs::is_symlink(fs::symlink_status(path, error));
}

bool is_real_directory(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(fs::symlink_status(path, error));
}

// Of a text's name, "-", the hash of its content, "-", that of its tokenizer, ".tokens".
bool is_cached_text(std::string_view name) {
  constexpr size_t kHash = 16;
  if (!name.ends_with(".tokens")) return false;
  name.remove_suffix(std::string_view(".tokens").size());
  for (int hash = 0; hash < 2; ++hash) {
    if (name.size() < kHash + 1 || name[name.size() - kHash - 1] != '-') return false;
    auto digits = name.substr(name.size() - kHash);
    if (digits.find_first_not_of("0123456789abcdef") != std::string_view::npos) return false;
    name.remove_suffix(kHash + 1);
  }
  return true;
}

bool has_manifest(const fs::path& path) {
  std::error_code error;
  return fs::exists(path / kManifestFile, error);
}

bool holds_only_checkpoint_files(const fs::path& directory) {
  auto names = names_in(directory);
  return std::all_of(names.begin(), names.end(), is_checkpoint_file);
}

// A name that a checkpoint or a half-written one may take the place of.
bool is_replaceable(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(fs::symlink_status(path, error)) || is_real_directory(path)) return true;
  return is_link(path) && has_manifest(path);
}

// What the user keeps in a checkpoint's directory goes with the name.
void hand_over(const fs::path& from, const fs::path& to) {
  std::error_code error;
  for (const std::string& name : names_in(from)) {
    if (is_checkpoint_file(name) || fs::exists(fs::symlink_status(to / name, error))) continue;
    fs::rename(from / name, to / name, error);
  }
}

// Into a directory that holds something of the user's, on a file system that can't exchange.
void move_files(const fs::path& from, const fs::path& to) {
  auto names = names_in(from);
  // The manifest last, which makes the checkpoint complete.
  std::partition(names.begin(), names.end(),
                 [](const std::string& name) { return name != kManifestFile; });
  for (const std::string& name : names) {
    std::error_code error;
    fs::rename(from / name, to / name, error);
    if (error) fail("can't write {}: {}", (to / name).string(), write_remedy(error.value()));
  }
  rmdir(from.c_str());
}

}  // namespace

std::string step_name(int64_t step) {
  return fmt::format("step-{:08}", step);
}

std::string half_written_name(int64_t step) {
  return fmt::format(".{}.tmp", step_name(step));
}

std::string shard_name(int64_t shard, int64_t shards) {
  return fmt::format("shard-{:05}-of-{:05}.safetensors", shard, shards);
}

std::optional<int64_t> step_in(const std::string& name) {
  std::string_view text = name;
  if (!take(text, "step-")) return std::nullopt;
  auto step = take_number(text);
  return step && *step >= 0 && name == step_name(*step) ? step : std::nullopt;
}

std::vector<std::pair<int64_t, fs::path>> complete_checkpoints(const fs::path& directory) {
  std::vector<std::pair<int64_t, fs::path>> found;
  for (const std::string& name : names_in(directory)) {
    auto step = step_in(name);
    if (step && has_manifest(directory / name)) found.emplace_back(*step, directory / name);
  }
  std::sort(found.begin(), found.end());
  return found;
}

std::optional<fs::path> find_latest(const fs::path& directory, int64_t before) {
  auto complete = complete_checkpoints(directory);
  while (!complete.empty() && complete.back().first >= before) complete.pop_back();
  if (complete.empty()) return std::nullopt;
  return complete.back().second;
}

std::vector<fs::path> later_checkpoints(const fs::path& directory,
                                        const std::optional<fs::path>& from) {
  auto all = complete_checkpoints(directory);
  int64_t start = -1;
  std::error_code error;
  for (auto& [step, path] : all)
    if (from && fs::equivalent(path, *from, error)) start = step;
  std::vector<fs::path> later;
  for (auto& [step, path] : all)
    if (step > start) later.push_back(path);
  return later;
}

void remove_checkpoint(const fs::path& path) {
  if (is_link(path)) {
    unlink(path.c_str());
    return;
  }
  unlink((path / kManifestFile).c_str());
  sync_directory(path);
  for (const std::string& name : names_in(path))
    if (is_checkpoint_file(name)) unlink((path / name).c_str());
  rmdir(path.c_str());  // stays while it holds anything else
}

void clean_checkpoints(const fs::path& directory) {
  if (is_link(directory)) return;
  for (const std::string& name : names_in(directory)) {
    fs::path path = directory / name;
    auto half_written = half_written_step_in(name);
    if (half_written && is_link(path)) unlink(path.c_str());
    if (!is_real_directory(path)) continue;
    if (half_written) {
      // A kill may have come between the exchange of two directories and the handing over.
      fs::path final = directory / step_name(*half_written);
      if (has_manifest(final) && is_real_directory(final)) hand_over(path, final);
    }
    bool headless = step_in(name) && !has_manifest(path);
    if ((half_written || headless) && holds_only_checkpoint_files(path)) remove_checkpoint(path);
  }
}

void rotate_checkpoints(const fs::path& directory, int64_t keep, const fs::path& saved) {
  if (keep <= 0 || is_link(directory)) return;
  auto complete = complete_checkpoints(directory);
  int64_t surplus = static_cast<int64_t>(complete.size()) - keep;
  for (auto& [step, path] : complete) {
    if (surplus-- <= 0) break;
    if (path != saved) remove_checkpoint(path);
  }
}

void check_checkpoint_names(const fs::path& directory, int64_t first, int64_t last) {
  check(!is_link(directory),
        "{} is a symbolic link, and nothing behind one is written or removed: make it a directory, "
        "or let the whole output be a link",
        directory.string());
  for (const std::string& name : names_in(directory)) {
    auto whole = step_in(name), half = half_written_step_in(name);
    if (!whole && !half) continue;
    int64_t step = whole ? *whole : *half;
    if (step < first || step > last) continue;
    fs::path path = directory / name;
    bool own = half
                   ? is_link(path) || (is_real_directory(path) && holds_only_checkpoint_files(path))
                   : is_replaceable(path);
    check(own,
          "{} has the name of a checkpoint that this run will write, but is none: move it away, or "
          "choose another --output",
          path.string());
  }
}

void clean_temporaries(const fs::path& output) {
  auto clean = [](const fs::path& directory, auto&& is_own) {
    for (const std::string& name : names_in(directory)) {
      auto final = final_name(name);
      if (final && is_own(*final)) unlink((directory / name).c_str());
    }
  };
  clean(output,
        [](const std::string& name) { return name == kConfigFile || name == kMetricsFile; });
  if (!is_link(output / "cache")) clean(output / "cache", is_cached_text);  // else others use it
}

void take_back(const std::vector<fs::path>& made) {
  for (auto path = made.rbegin(); path != made.rend(); ++path)
    if (rmdir(path->c_str()) != 0 && errno == ENOTDIR) unlink(path->c_str());
}

fs::path make_half_written(const fs::path& directory, int64_t step) {
  fs::path path = directory / half_written_name(step);
  if (mkdir(path.c_str(), 0777) != 0) {
    int error = errno;
    check(error != EEXIST, "{} is in the way, and not adagate's: move it away", path.string());
    fail("can't make the directory {}: {}", path.string(), write_remedy(error));
  }
  return path;
}

void put_in_place(const fs::path& half_written, const fs::path& path) {
  check(is_replaceable(path), "{} is in the way, and no checkpoint: move it away", path.string());
  std::error_code error;
  if (fs::exists(fs::symlink_status(path, error))) {
    if (renameat2(AT_FDCWD, half_written.c_str(), AT_FDCWD, path.c_str(), RENAME_EXCHANGE) == 0) {
      sync_directory(path.parent_path());
      if (!is_link(half_written)) hand_over(half_written, path);
      remove_checkpoint(half_written);
      return;
    }
    remove_checkpoint(path);  // a file system without exchange
  }
  if (is_real_directory(path)) {
    move_files(half_written, path);
  } else {
    fs::rename(half_written, path, error);
    if (error) fail("can't write {}: {}", path.string(), write_remedy(error.value()));
  }
  sync_directory(path.parent_path());
}

}  // namespace adagate
