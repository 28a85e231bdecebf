// A gating policy with a state: loss-free balancing (Wang et al. 2024).
#pragma once

#include <numeric>
#include <vector>

#include "moe/gating_policy.h"

namespace adagate::test {

// [policy]
// The score of an expert rises by `rate` after each step in which its load was below an even one,
// and falls by it where the load was above.
class SteeredPolicy : public RulePolicy {
 public:
  SteeredPolicy(SelectionRule rule, int64_t experts, double rate)
      : RulePolicy(rule), rate_(rate), bias_(Tensor::zeros({experts}, DType::f32)) {
    add_state("bias", bias_);
  }

  void end_step(const RoutingSums& sums) override {
    std::vector<float> bias = bias_.to_floats();
    double all = std::accumulate(sums.assigned.begin(), sums.assigned.end(), 0.0);
    double even = all / static_cast<double>(bias.size());
    for (size_t e = 0; e < bias.size(); ++e) {
      double step = sums.assigned[e] < even ? rate_ : sums.assigned[e] > even ? -rate_ : 0.0;
      bias[e] += static_cast<float>(step);
    }
    bias_.copy_from(Tensor::from(bias, bias_.shape()));
  }

 protected:
  Tensor score_bias() const override { return bias_; }

 private:
  double rate_;
  Tensor bias_;  // f32 [experts]
};
// [end]

}  // namespace adagate::test
