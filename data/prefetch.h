// Batches made ahead of their use.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "data/batch.h"

namespace adagate {

using StepBatches = std::vector<Batch>;  // a rank's micro-batches of one step

// Calls `make` on a thread of its own, up to `depth` results ahead, and hands them out in order.
// Depth 0: no thread, each is made when asked for. An exception of `make` comes out of the next()
// that would have given its result, and of every one after that.
class Prefetcher {
 public:
  Prefetcher(std::function<StepBatches()> make, int depth);
  ~Prefetcher();  // waits for a `make` under way; what is left is dropped
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;
  StepBatches next();

 private:
  void run();
  std::function<StepBatches()> make_;
  size_t depth_;
  std::mutex mutex_;  // guards the four below
  std::condition_variable changed_;
  std::deque<StepBatches> ready_;
  std::exception_ptr failure_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace adagate
