#include "data/prefetch.h"

#include "core/base/error.h"

namespace adagate {

Prefetcher::Prefetcher(std::function<StepBatches()> make, int depth)
    : make_(std::move(make)), depth_(static_cast<size_t>(depth)) {
  check(depth >= 0, "prefetch: a depth of {} batches", depth);
  if (depth > 0) thread_ = std::thread([this] { run(); });
}

Prefetcher::~Prefetcher() {
  if (!thread_.joinable()) return;
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Prefetcher::run() {
  try {
    while (true) {
      StepBatches batches = make_();
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return stop_ || ready_.size() < depth_; });
      if (stop_) return;
      ready_.push_back(std::move(batches));
      changed_.notify_all();
    }
  } catch (...) {
    std::lock_guard lock(mutex_);
    failure_ = std::current_exception();
    changed_.notify_all();
  }
}

StepBatches Prefetcher::next() {
  if (depth_ == 0) return make_();
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !ready_.empty() || failure_; });
  if (ready_.empty()) std::rethrow_exception(failure_);
  StepBatches batches = std::move(ready_.front());
  ready_.pop_front();
  changed_.notify_all();
  return batches;
}

}  // namespace adagate
