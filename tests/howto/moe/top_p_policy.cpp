#include "moe/top_p_policy.h"

#include <algorithm>
#include <numeric>

namespace adagate {
namespace {

class TopPPolicy : public GatingPolicy {
 public:
  TopPPolicy(double share, int64_t experts) : share_(share), experts_(experts) {}

  int64_t k_max() const override { return experts_; }

  Selection choose(const GateInput& in) const override {
    const int64_t tokens = in.scores.probabilities.dim(0);
    Tensor row_start = Tensor::zeros({tokens + 1}, DType::i32);
    std::vector<int32_t> chosen;
    visit_floating(in.scores.probabilities.dtype(), [&](auto type) {
      const auto* p = in.scores.probabilities.data<decltype(type)>();  // [tokens, experts]
      for (int64_t t = 0; t < tokens; ++t) {
        bool real = !in.mask || in.mask.data<uint8_t>()[t] != 0;
        if (real) choose_one(p + t * experts_, chosen);
        row_start.data<int32_t>()[t + 1] = static_cast<int32_t>(chosen.size());
      }
    });
    Selection selection{.row_start = row_start, .expert = {}};
    selection.expert = Tensor::from(chosen, {static_cast<int64_t>(chosen.size())});
    return selection;
  }

 private:
  // Appends one token's experts, the most probable first; the lower index wins a tie.
  template <class T>
  void choose_one(const T* p, std::vector<int32_t>& chosen) const {
    std::vector<int32_t> order(static_cast<size_t>(experts_));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return p[a] > p[b]; });
    double gathered = 0;
    for (int32_t e : order) {
      chosen.push_back(e);
      gathered += static_cast<double>(p[e]);
      if (gathered >= share_) break;
    }
  }

  double share_;
  int64_t experts_;
};

}  // namespace

std::unique_ptr<GatingPolicy> make_top_p_policy(const GateConfig& config, int64_t experts) {
  check(config.threshold > 0 && config.threshold <= 1,
        "moe.gate.threshold is {}: the top_p policy needs a share above 0, at most 1",
        config.threshold);
  return std::make_unique<TopPPolicy>(config.threshold, experts);
}

ExpertsPerToken top_p_takes(const GateConfig&, int64_t experts) {
  return {.expected = 1, .least = 1, .most = experts};
}

}  // namespace adagate
