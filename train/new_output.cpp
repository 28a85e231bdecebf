#include "train/new_output.h"

#include <cerrno>
#include <chrono>
#include <fcntl.h>
#include <sys/file.h>
#include <thread>
#include <unistd.h>

#include "core/io/atomic_file.h"
#include "parallel/agree.h"

namespace adagate {
namespace fs = std::filesystem;
namespace {

std::set<fs::path> entries(const fs::path& directory) {
  std::error_code error;
  std::set<fs::path> found;
  for (const auto& entry : fs::directory_iterator(directory, error)) found.insert(entry.path());
  return found;
}

}  // namespace

DirectoryLock::DirectoryLock(const fs::path& path)
    : fd_(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  constexpr int kAttempts = 20;
  constexpr auto kPause = std::chrono::milliseconds(50);
  if (fd_ < 0) return;
  for (int attempt = 1; flock(fd_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK; ++attempt) {
    if (attempt == kAttempts) {
      close(fd_);
      fail("output {} is in use by another run: choose another --output, or stop that one",
           path.string());
    }
    std::this_thread::sleep_for(kPause);
  }
}

DirectoryLock::~DirectoryLock() {
  if (fd_ >= 0) close(fd_);
}

NewOutput::NewOutput(Communicator& world, const fs::path& path) : cache_(path / "cache") {
  on_all_ranks(world, [&] {
    if (world.rank() != 0) return;
    std::error_code error;
    for (fs::path p = fs::absolute(path); !fs::exists(p, error) && p.has_relative_path();
         p = p.parent_path()) {
      made_ = p;
    }
    named("output", [&] { make_directories(path); });
    lock_ = std::make_unique<DirectoryLock>(path);
    had_cache_ = fs::exists(cache_, error);
    cached_ = entries(cache_);
    keep_ = false;
  });
}

NewOutput::~NewOutput() {
  if (keep_) return;
  std::error_code error;
  for (const fs::path& file : entries(cache_))
    if (!cached_.count(file)) fs::remove(file, error);
  if (!had_cache_) fs::remove(cache_, error);
  if (!made_.empty()) fs::remove_all(made_, error);
}

}  // namespace adagate
