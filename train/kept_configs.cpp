#include "train/kept_configs.h"

#include <charconv>
#include <fmt/format.h>
#include <string_view>
#include <vector>

#include "core/io/atomic_file.h"

namespace adagate {
namespace fs = std::filesystem;
namespace {

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

void keep_configuration(const fs::path& run, const std::string& yaml, int64_t step,
                        const std::string& before) {
  if (!before.empty()) write_file_atomically(config_file_until(run, step), before);
  int64_t first_gone = before.empty() ? step : step + 1;
  std::error_code error;
  std::vector<fs::path> later;
  for (const auto& entry : fs::directory_iterator(run, error))
    if (step_of(entry.path()) >= first_gone) later.push_back(entry.path());
  for (const fs::path& path : later) fs::remove(path, error);
  write_file_atomically(config_file(run), yaml);
}

}  // namespace adagate
