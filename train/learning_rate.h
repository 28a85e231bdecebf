// Learning rate over the training: linear warm-up, then cosine, linear or no decay.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>

namespace adagate {

// The steps that a schedule is laid over. A run that is never given another length has one from
// step 0, where the rate is 0, to its end.
struct ScheduleSpan {
  int64_t first = 0;  // the rise begins with this step
  double from = 0;    // at this rate
  int64_t end = 0;    // the decay ends here
  bool held = false;  // the rate is `from` at every step

  bool operator==(const ScheduleSpan&) const = default;
};

// rate(s) for step s from 0, with n = s - first: from + (peak - from) * (n + 1) / warmup during
// warm-up; then, with t = (n - warmup) / (end - first - warmup), peak * (r + (1 - r) * (1 + cos(pi
// t)) / 2) for cosine and peak * (1 - (1 - r) t) for linear, r = final_ratio.
class LearningRate {
 public:
  LearningRate(double peak, int64_t warmup_steps, const ScheduleSpan& span, std::string decay,
               double final_ratio)
      : peak_(peak),
        warmup_(warmup_steps),
        span_(span),
        decay_(std::move(decay)),
        final_ratio_(final_ratio) {}
  LearningRate(double peak, int64_t warmup_steps, int64_t total_steps, std::string decay,
               double final_ratio)
      : LearningRate(peak, warmup_steps, ScheduleSpan{.end = total_steps}, std::move(decay),
                     final_ratio) {}

  double at(int64_t step) const {
    if (span_.held) return span_.from;
    int64_t n = step - span_.first, length = span_.end - span_.first;
    if (n < warmup_) {
      return span_.from +
             (peak_ - span_.from) * static_cast<double>(n + 1) / static_cast<double>(warmup_);
    }
    if (decay_ == "constant" || length <= warmup_) return peak_;
    double t =
        std::min(1.0, static_cast<double>(n - warmup_) / static_cast<double>(length - warmup_));
    double remaining = decay_ == "linear" ? 1.0 - t : 0.5 * (1.0 + std::cos(M_PI * t));
    return peak_ * (final_ratio_ + (1.0 - final_ratio_) * remaining);
  }

 private:
  double peak_;
  int64_t warmup_;
  ScheduleSpan span_;
  std::string decay_;
  double final_ratio_;
};

}  // namespace adagate
