// The output directory of a run that may yet find that it can't start.
#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "parallel/communicator.h"

namespace adagate {

// Holds a directory against other runs as long as this process has it; a killed one has it no more.
class DirectoryLock {
 public:
  // Throws Error when another process holds it and goes on doing so for a second: a run that was
  // killed a moment ago may still be ending. File systems without locks have no lock.
  explicit DirectoryLock(const std::filesystem::path& path);
  ~DirectoryLock();
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;

 private:
  int fd_ = -1;
};

// Makes the directory on rank 0 and locks it, and takes back what was made when it is destroyed
// without keep(): its own files, then directories that are empty.
class NewOutput {
 public:
  // Collective. Throws Error naming the key output, the path and the cause.
  NewOutput(Communicator& world, const std::filesystem::path& path);
  ~NewOutput();
  NewOutput(const NewOutput&) = delete;
  NewOutput& operator=(const NewOutput&) = delete;
  const std::filesystem::path& path() const { return path_; }
  // Files and directories to take back, in the order in which they were made.
  std::vector<std::filesystem::path>& made() { return made_; }
  // The lock is to be held while the run lasts.
  std::unique_ptr<DirectoryLock> keep() {
    keep_ = true;
    return std::move(lock_);
  }

 private:
  std::unique_ptr<DirectoryLock> lock_;  // rank 0
  std::filesystem::path path_;
  std::vector<std::filesystem::path> made_;
  bool keep_ = true;  // on the other ranks
};

}  // namespace adagate
