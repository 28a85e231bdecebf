// Scores of the gate against the softmax, written out here; their gradients are checked with all
// other ops' in test_op_cases.cpp, choices and sums in tests/moe.
#include <algorithm>
#include <cmath>

#include "core/ops/routing.h"
#include "tests/support/gradient_check.h"

using namespace adagate;
using namespace adagate::test;

namespace {

GateScores softmax(const Tensor& x, const Tensor& weight) {
  const int64_t tokens = x.rows(), width = x.cols(), experts = weight.cols();
  GateScores scores{Tensor::empty({tokens, experts}, DType::f64),
                    Tensor::empty({tokens}, DType::f64), Tensor::empty({tokens}, DType::f64)};
  for (int64_t t = 0; t < tokens; ++t) {
    std::vector<double> logits(static_cast<size_t>(experts), 0.0);
    for (int64_t e = 0; e < experts; ++e)
      for (int64_t d = 0; d < width; ++d)
        logits[static_cast<size_t>(e)] +=
            x.data<double>()[t * width + d] * weight.data<double>()[d * experts + e];
    const double largest = *std::max_element(logits.begin(), logits.end());
    double sum = 0, entropy = 0;
    for (double l : logits) sum += std::exp(l - largest);
    const double log_sum_exp = largest + std::log(sum);
    for (int64_t e = 0; e < experts; ++e) {
      const double log_p = logits[static_cast<size_t>(e)] - log_sum_exp;
      scores.probabilities.data<double>()[t * experts + e] = std::exp(log_p);
      entropy -= std::exp(log_p) * log_p;
    }
    scores.log_sum_exp.data<double>()[t] = log_sum_exp;
    scores.entropy.data<double>()[t] = entropy;
  }
  return scores;
}

}  // namespace

TEST_CASE("gate scores are the softmax of the logits, near and hundreds apart") {
  constexpr int64_t width = 19;
  struct Types {
    DType x, weight;
  };
  for (Types type : {Types{DType::f64, DType::f64}, Types{DType::f32, DType::f32},
                     Types{DType::bf16, DType::f32}})
    for (int64_t experts : {1, 2, 8, 9, 16, 17, 40})
      for (int64_t tokens : {1, 8, 27})
        for (double size : {0.3, 300.0}) {
          INFO("x " << name_of(type.x) << ", " << experts << " experts, " << tokens
                    << " tokens, weights of size " << size);
          Tensor x = random_normal({tokens, width}, 1).to(type.x);
          Tensor weight = random_normal({width, experts}, 2, size).to(type.weight);
          GateScores got = gate_scores(x, weight);
          GateScores expected = softmax(x.to(DType::f64), weight.to(DType::f64));
          // A logit's rounding is relative to its size, and becomes that of its probability.
          const double bound = (type.x == DType::f64 ? 1e-14 : 5e-6) * std::max(1.0, size);
          CHECK(relative_error(got.probabilities, expected.probabilities) < bound);
          CHECK(relative_error(got.log_sum_exp, expected.log_sum_exp) < bound);
          for (int64_t t = 0; t < tokens; ++t)
            CHECK(got.entropy.to_doubles()[static_cast<size_t>(t)] ==
                  Approx(expected.entropy.to_doubles()[static_cast<size_t>(t)])
                      .margin(bound * (1 + std::log(experts))));
        }
}
