#include "train/remaining_time.h"

#include <algorithm>

namespace adagate {
namespace {

constexpr int64_t kMemory = 50;

}  // namespace

void RemainingTime::Average::add(double value) {
  ++count;
  int64_t weight = std::clamp<int64_t>(count - 1, 1, kMemory);
  mean += (value - mean) / static_cast<double>(weight);
}

void RemainingTime::add_step(double seconds, int64_t tokens) {
  step_.add(seconds);
  tokens_.add(static_cast<double>(tokens));
}

double RemainingTime::tokens_per_second() const {
  return step_.mean > 0 ? tokens_.mean / step_.mean : 0;
}

double RemainingTime::seconds(int64_t steps, int64_t evaluations, int64_t checkpoints) const {
  auto of = [](int64_t count, const Average& average) {
    return static_cast<double>(count) * average.mean;
  };
  return of(steps, step_) + of(evaluations, evaluation_) + of(checkpoints, checkpoint_);
}

}  // namespace adagate
