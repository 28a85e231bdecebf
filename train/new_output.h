// The output directory of a run that may yet find that it can't start.
#pragma once

#include <filesystem>
#include <set>

#include "parallel/communicator.h"

namespace adagate {

// Makes the directory on rank 0, and takes back what was made of it and of its cache of tokenized
// texts when it is destroyed without keep().
class NewOutput {
 public:
  // Collective. Throws Error naming the key output, the path and the cause.
  NewOutput(Communicator& world, const std::filesystem::path& path);
  ~NewOutput();
  NewOutput(const NewOutput&) = delete;
  NewOutput& operator=(const NewOutput&) = delete;
  const std::filesystem::path& cache() const { return cache_; }
  void keep() { keep_ = true; }

 private:
  std::filesystem::path cache_;
  std::filesystem::path made_;              // the uppermost directory; empty: none
  std::set<std::filesystem::path> cached_;  // before this run
  bool had_cache_ = false;
  bool keep_ = true;  // on the other ranks
};

}  // namespace adagate
