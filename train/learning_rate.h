// Learning rate over the training: linear warm-up, then cosine, linear or no decay.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>

namespace adagate {

// rate(s) for step s from 0: peak * (s + 1) / warmup during warm-up; then, with
// t = (s - warmup) / (total - warmup), peak * (r + (1 - r) * (1 + cos(pi t)) / 2) for cosine and
// peak * (1 - (1 - r) t) for linear, r = final_ratio.
class LearningRate {
 public:
  LearningRate(double peak, int64_t warmup_steps, int64_t total_steps, std::string decay,
               double final_ratio)
      : peak_(peak),
        warmup_(warmup_steps),
        total_(total_steps),
        decay_(std::move(decay)),
        final_ratio_(final_ratio) {}

  double at(int64_t step) const {
    if (step < warmup_) {
      return peak_ * static_cast<double>(step + 1) / static_cast<double>(warmup_);
    }
    if (decay_ == "constant" || total_ <= warmup_) return peak_;
    double t =
        std::min(1.0, static_cast<double>(step - warmup_) / static_cast<double>(total_ - warmup_));
    double remaining = decay_ == "linear" ? 1.0 - t : 0.5 * (1.0 + std::cos(M_PI * t));
    return peak_ * (final_ratio_ + (1.0 - final_ratio_) * remaining);
  }

 private:
  double peak_;
  int64_t warmup_, total_;
  std::string decay_;
  double final_ratio_;
};

}  // namespace adagate
