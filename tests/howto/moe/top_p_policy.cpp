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
    // Chosen on the host: a kernel of its own would spare the copies.
    const std::vector<double> p = in.scores.probabilities.to_doubles();  // [tokens, experts]
    const std::vector<uint8_t> mask = in.mask ? in.mask.to_host<uint8_t>() : std::vector<uint8_t>{};
    std::vector<int32_t> row_start{0}, chosen;
    for (size_t t = 0; t < p.size() / static_cast<size_t>(experts_); ++t) {
      bool real = mask.empty() || mask[t] != 0;
      if (real) choose_one(p.data() + t * static_cast<size_t>(experts_), chosen);
      row_start.push_back(static_cast<int32_t>(chosen.size()));
    }
    return make_selection(row_start, chosen, experts_, in.scores.probabilities.device());
  }

 private:
  // Appends one token's experts, the most probable first; the lower index wins a tie.
  void choose_one(const double* p, std::vector<int32_t>& chosen) const {
    std::vector<int32_t> order(static_cast<size_t>(experts_));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return p[a] > p[b]; });
    double gathered = 0;
    for (int32_t e : order) {
      chosen.push_back(e);
      gathered += p[e];
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
