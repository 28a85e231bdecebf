#include "parallel/machine_limits.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <fstream>
#include <optional>
#include <sstream>
#include <vector>

namespace adagate {
namespace fs = std::filesystem;
namespace {

// A system's file by its absolute path, under the root that stands for this machine.
fs::path under(const fs::path& root, const fs::path& path) {
  return root / path.relative_path();
}

std::vector<std::string> words_of(const std::string& line, char separator = ' ') {
  std::vector<std::string> words;
  std::istringstream stream(line);
  for (std::string word; std::getline(stream, word, separator);)
    if (!word.empty()) words.push_back(word);
  return words;
}

// The first whole number, or none ("max", an empty or missing file).
std::optional<int64_t> number_in(std::istream&& text) {
  int64_t number;
  if (text >> number) return number;
  return std::nullopt;
}

// The number that follows `name` in lines like "MemAvailable:  123 kB" or "inactive_file 123".
std::optional<int64_t> number_after(const fs::path& file, const std::string& name) {
  std::ifstream stream(file);
  for (std::string line; std::getline(stream, line);)
    if (line.starts_with(name)) return number_in(std::istringstream(line.substr(name.size())));
  return std::nullopt;
}

// mountinfo writes blanks, tabs, line ends and backslashes as \ooo.
std::string unescape(const std::string& text) {
  std::string plain;
  auto octal = [&](size_t i) { return i < text.size() && text[i] >= '0' && text[i] <= '7'; };
  for (size_t i = 0; i < text.size(); ++i) {
    bool escaped = text[i] == '\\' && octal(i + 1) && octal(i + 2) && octal(i + 3);
    plain += escaped ? static_cast<char>(std::stoi(text.substr(i + 1, 3), nullptr, 8)) : text[i];
    if (escaped) i += 3;
  }
  return plain;
}

// This process's group in the hierarchy of `controller`; version 2 has one hierarchy, named "".
std::optional<std::string> group_path(const fs::path& root, const std::string& controller) {
  std::ifstream file(under(root, "/proc/self/cgroup"));
  for (std::string line; std::getline(file, line);) {  // number:controllers:path
    size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    auto controllers = words_of(line.substr(first + 1, second - first - 1), ',');
    bool ours = controller.empty() ? controllers.empty()
                                   : std::find(controllers.begin(), controllers.end(),
                                               controller) != controllers.end();
    if (ours) return line.substr(second + 1);
  }
  return std::nullopt;
}

// `mount` and the groups below it down to `path`.
std::vector<fs::path> levels(const fs::path& mount, const std::string& path) {
  std::vector<fs::path> all = {mount};
  for (const std::string& name : words_of(path, '/')) all.push_back(all.back() / name);
  return all;
}

// The directories of this process's group and its parents, as far as they are mounted.
std::vector<fs::path> group_directories(const fs::path& root, const std::string& controller) {
  auto path = group_path(root, controller);
  std::vector<fs::path> directories;
  std::ifstream file(under(root, "/proc/self/mountinfo"));
  for (std::string line; path && std::getline(file, line);) {
    // number parent device root mount-point options [tags] - type source options
    size_t dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    auto front = words_of(line.substr(0, dash)), back = words_of(line.substr(dash + 3));
    if (front.size() < 5 || back.size() < 3) continue;
    auto options = words_of(back[2], ',');
    bool ours = controller.empty()
                    ? back[0] == "cgroup2"
                    : back[0] == "cgroup" &&
                          std::find(options.begin(), options.end(), controller) != options.end();
    if (!ours) continue;
    // A container may see only its own part of the hierarchy (`top`), and its group may lie above
    // it ("/..."): then what is mounted is a parent of the group, or the group itself.
    std::string top = unescape(front[3]);
    fs::path mount = under(root, unescape(front[4]));
    if (top.starts_with("/..") || path->starts_with("/..")) {
      directories.push_back(mount);
      continue;
    }
    if (top == "/") top.clear();
    if (!path->starts_with(top)) continue;
    std::string rest = path->substr(top.size());
    if (!rest.empty() && rest[0] != '/') continue;  // "/ab" doesn't lie in "/a"
    for (fs::path& level : levels(mount, rest)) directories.push_back(std::move(level));
  }
  return directories;
}

std::optional<int64_t> number_in_file(const fs::path& file) {
  return number_in(std::ifstream(file));
}

void take_smaller(CpuQuota& least, int64_t quota, int64_t period, const fs::path& file) {
  if (quota <= 0 || period <= 0) return;  // -1: no quota
  double cpus = static_cast<double>(quota) / static_cast<double>(period);
  if (least.cpus == 0 || cpus < least.cpus) least = {cpus, file.string()};
}

void take_smaller(MemoryBudget& least, int64_t bytes, const std::string& source) {
  bytes = std::max<int64_t>(0, bytes);
  if (bytes < least.bytes) least = {bytes, source};
}

// What the limit in `group`'s file leaves, and the caches of files that can go.
void take_group(MemoryBudget& least, const fs::path& group, const std::string& limit_name,
                const std::string& use_name, const std::string& prefix, int64_t ranks) {
  constexpr int64_t kNone = int64_t{1} << 62;  // version 1 writes a number near 2^63
  auto limit = number_in_file(group / limit_name);
  if (!limit || *limit >= kNone) return;
  int64_t used = number_in_file(group / use_name).value_or(0);
  for (const char* list : {"inactive_file ", "active_file "})
    used -= number_after(group / "memory.stat", prefix + list).value_or(0);
  take_smaller(least, (*limit - std::max<int64_t>(0, used)) / ranks,
               fmt::format("the memory limit in {}", (group / limit_name).string()));
}

// ulimit -v and -d bound each process by itself.
void take_process_limit(MemoryBudget& least, const fs::path& root, const std::string& limit_name,
                        const std::string& use_name, const std::string& option) {
  auto limit = number_after(under(root, "/proc/self/limits"), limit_name);
  auto used = number_after(under(root, "/proc/self/status"), use_name);  // kB
  if (limit && used) {
    take_smaller(least, *limit - *used * 1024, fmt::format("the limit of ulimit {}", option));
  }
}

}  // namespace

int CpuQuota::threads(int otherwise) const {
  constexpr double kMost = 1 << 20, kRounding = 1e-6;
  if (cpus <= 0) return otherwise;
  return std::max(1, static_cast<int>(std::ceil(std::min(cpus, kMost) - kRounding)));
}

CpuQuota read_cpu_quota(const fs::path& root) {
  CpuQuota least;
  for (const fs::path& group : group_directories(root, "")) {
    std::ifstream file(group / "cpu.max");  // "quota period" or "max period"
    int64_t quota, period;
    if (file >> quota >> period) take_smaller(least, quota, period, group / "cpu.max");
  }
  for (const fs::path& group : group_directories(root, "cpu")) {
    auto quota = number_in_file(group / "cpu.cfs_quota_us");
    auto period = number_in_file(group / "cpu.cfs_period_us");
    if (quota && period) take_smaller(least, *quota, *period, group / "cpu.cfs_quota_us");
  }
  return least;
}

MemoryBudget available_memory(int local_ranks, const fs::path& root) {
  int64_t ranks = std::max(1, local_ranks);
  MemoryBudget least;
  fs::path machine = under(root, "/proc/meminfo");
  if (auto available = number_after(machine, "MemAvailable:")) {
    int64_t swap = number_after(machine, "SwapFree:").value_or(0);
    take_smaller(least, (*available + swap) * 1024 / ranks, "the free memory of this machine");
  }
  for (const fs::path& group : group_directories(root, ""))
    take_group(least, group, "memory.max", "memory.current", "", ranks);
  for (const fs::path& group : group_directories(root, "memory"))
    take_group(least, group, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_", ranks);
  take_process_limit(least, root, "Max address space", "VmSize:", "-v");
  take_process_limit(least, root, "Max data size", "VmData:", "-d");
  return least;
}

}  // namespace adagate
