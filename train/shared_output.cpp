#include "train/shared_output.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <fcntl.h>
#include <random>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

#include "core/io/atomic_file.h"
#include "parallel/agree.h"
#include "parallel/rank_names.h"

namespace adagate {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kPrefix = ".adagate-start-";
constexpr size_t kDigits = 16;

bool is_marker(const fs::directory_entry& entry) {
  std::string name = entry.path().filename().string();
  std::error_code error;
  return name.starts_with(kPrefix) && name.size() == kPrefix.size() + kDigits &&
         std::all_of(name.begin() + kPrefix.size(), name.end(),
                     [](unsigned char c) { return std::isxdigit(c) != 0; }) &&
         !entry.is_symlink(error) && entry.is_regular_file(error) && entry.file_size(error) == 0;
}

// An empty file for as long as this object lives.
class Marker {
 public:
  explicit Marker(fs::path path) : path_(std::move(path)) {
    int fd = open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0) fail("can't write {}: {}", path_.parent_path().string(), write_remedy(errno));
    close(fd);
  }
  ~Marker() { unlink(path_.c_str()); }
  Marker(const Marker&) = delete;
  Marker& operator=(const Marker&) = delete;

 private:
  fs::path path_;
};

void remove_left_markers(const fs::path& output) {
  std::error_code error;
  std::vector<fs::path> left;
  for (const auto& entry : fs::directory_iterator(output, error))
    if (is_marker(entry)) left.push_back(entry.path());
  for (const fs::path& marker : left) fs::remove(marker, error);
}

bool appears(const fs::path& file, std::chrono::milliseconds patience) {
  constexpr auto kPause = std::chrono::milliseconds(50);
  auto end = std::chrono::steady_clock::now() + patience;
  std::error_code error;
  while (!fs::exists(file, error)) {
    if (std::chrono::steady_clock::now() >= end) return false;
    std::this_thread::sleep_for(kPause);
    // Opening a folder makes NFS ask the server anew.
    fs::directory_iterator look(file.parent_path(), error);
  }
  return true;
}

}  // namespace

void check_output_shared(Communicator& world, const fs::path& output,
                         std::chrono::milliseconds patience) {
  if (world.size() == 1) return;
  uint64_t number = std::random_device{}();
  number = number << 32 | std::random_device{}();
  world.broadcast(&number, 1, DType::i64, 0);
  fs::path file = output / fmt::format("{}{:016x}", kPrefix, number);
  std::unique_ptr<Marker> marker;
  on_all_ranks(world, [&] {
    if (world.rank() != 0) return;
    remove_left_markers(output);
    named("output", [&] { marker = std::make_unique<Marker>(file); });
  });
  int64_t sees = marker != nullptr || appears(file, patience);
  std::vector<int64_t> all(static_cast<size_t>(world.size()));
  world.all_gather(&sees, all.data(), 1, DType::i64);
  std::vector<int> blind;
  for (int r = 0; r < world.size(); ++r)
    if (all[static_cast<size_t>(r)] == 0) blind.push_back(r);
  if (blind.empty()) return;
  RankNames names(world);
  std::error_code error;
  std::string own = fs::absolute(output, error).lexically_normal().string();
  std::string written = broadcast_text(world, own, 0);
  std::string looked = broadcast_text(world, own, blind.front());
  fail(
      "output is not one folder: {} on {} does not show what {} writes to {}; name a folder that "
      "all ranks and hosts share",
      looked, names.of(blind), names.of(0), written);
}

}  // namespace adagate
