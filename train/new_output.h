// The output directory of a run that may yet find that it can't start.
#pragma once

#include <filesystem>
#include <memory>
#include <set>

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

// Makes the directory on rank 0 and locks it, and takes back what was made of it and of its cache
// of tokenized texts when it is destroyed without keep().
class NewOutput {
 public:
  // Collective. Throws Error naming the key output, the path and the cause.
  NewOutput(Communicator& world, const std::filesystem::path& path);
  ~NewOutput();
  NewOutput(const NewOutput&) = delete;
  NewOutput& operator=(const NewOutput&) = delete;
  const std::filesystem::path& cache() const { return cache_; }
  // The lock is to be held while the run lasts.
  std::unique_ptr<DirectoryLock> keep() {
    keep_ = true;
    return std::move(lock_);
  }

 private:
  std::unique_ptr<DirectoryLock> lock_;  // rank 0
  std::filesystem::path cache_;
  std::filesystem::path made_;              // the uppermost directory; empty: none
  std::set<std::filesystem::path> cached_;  // before this run
  bool had_cache_ = false;
  bool keep_ = true;  // on the other ranks
};

}  // namespace adagate
