#include "train/new_output.h"

#include <cerrno>
#include <chrono>
#include <fcntl.h>
#include <sys/file.h>
#include <thread>
#include <unistd.h>

#include "core/io/atomic_file.h"
#include "parallel/agree.h"
#include "train/run_directory.h"

namespace adagate {
namespace fs = std::filesystem;

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

NewOutput::NewOutput(Communicator& world, const fs::path& path) : path_(path) {
  on_all_ranks(world, [&] {
    if (world.rank() != 0) return;
    named("output", [&] { made_ = make_directories(path); });
    try {
      lock_ = std::make_unique<DirectoryLock>(path);
    } catch (...) {
      take_back(made_);
      throw;
    }
    keep_ = false;
  });
}

NewOutput::~NewOutput() {
  if (!keep_) take_back(made_);
}

}  // namespace adagate
