#include "train/kept_configs.h"

#include <charconv>
#include <fmt/format.h>
#include <fstream>
#include <string_view>
#include <vector>

#include "core/io/atomic_file.h"

namespace adagate {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kFirstLine =
    "# The configuration of the run in this directory; written by adagate.\n";
constexpr std::string_view kUntil = "config-until-", kEnding = ".yaml";

// Step of a file named as config_file_until() names it; -1 for any other.
int64_t step_of(const fs::path& path) {
  std::string name = path.filename().string();
  if (!name.starts_with(kUntil)) return -1;
  int64_t step = -1;
  std::from_chars(name.data() + kUntil.size(), name.data() + name.size(), step);
  return step >= 0 && path.filename() == config_file_until("", step).filename() ? step : -1;
}

}  // namespace

fs::path config_file(const fs::path& run) {
  return run / "config.yaml";
}

fs::path config_file_until(const fs::path& run, int64_t step) {
  return run / fmt::format("{}{:08}{}", kUntil, step, kEnding);
}

fs::path run_of_config(const fs::path& file) {
  std::error_code error;
  fs::path run = fs::absolute(file, error).parent_path();
  bool named = file.filename() == config_file("").filename() || step_of(file) >= 0;
  bool beside = fs::exists(run / "checkpoints", error) || fs::exists(run / "metrics.jsonl", error);
  if (!named || !beside) return {};
  std::string line;
  std::ifstream text(file);
  std::getline(text, line);
  return line + "\n" == kFirstLine ? run : fs::path();
}

void keep_configuration(const fs::path& run, const std::string& yaml, int64_t step,
                        const std::string& before) {
  std::string first(kFirstLine);
  if (!before.empty()) write_file_atomically(config_file_until(run, step), first + before);
  int64_t first_gone = before.empty() ? step : step + 1;
  std::error_code error;
  std::vector<fs::path> later;
  for (const auto& entry : fs::directory_iterator(run, error))
    if (step_of(entry.path()) >= first_gone) later.push_back(entry.path());
  for (const fs::path& path : later) fs::remove(path, error);
  write_file_atomically(config_file(run), first + yaml);
}

}  // namespace adagate
