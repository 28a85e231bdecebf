#include <limits>

#include "core/base/vector_math.h"
#include "core/ops/activation_math.h"
#include "tests/support/catch.h"

using namespace adagate;

namespace {

template <class F, class G>
double worst_relative_error(F approximate, G exact, float low, float high) {
  double worst = 0;
  constexpr int kPoints = 200000;
  for (int i = 0; i <= kPoints; ++i) {
    float x = low + (high - low) * (static_cast<float>(i) / kPoints);
    double truth = exact(static_cast<double>(x));
    if (truth == 0) continue;
    worst =
        std::max(worst, std::abs(static_cast<double>(approximate(x)) - truth) / std::abs(truth));
  }
  return worst;
}

}  // namespace

TEST_CASE("exp, tanh and erf in f32 are within 1e-6") {
  auto exp = [](float x) { return vector_math::exp(x); };
  auto tanh = [](float x) { return vector_math::tanh(x); };
  auto erf = [](float x) { return vector_math::erf(x); };
  CHECK(worst_relative_error(
            exp, [](double x) { return std::exp(x); }, -87.2f, 88.7f) < 1e-6);
  CHECK(worst_relative_error(
            exp, [](double x) { return std::exp(x); }, -1e-3f, 1e-3f) < 2e-7);
  CHECK(worst_relative_error(
            tanh, [](double x) { return std::tanh(x); }, -12.0f, 12.0f) < 1e-6);
  CHECK(worst_relative_error(
            tanh, [](double x) { return std::tanh(x); }, -1e-4f, 1e-4f) < 1e-6);
  CHECK(worst_relative_error(
            erf, [](double x) { return std::erf(x); }, -6.0f, 6.0f) < 1e-6);
  CHECK(worst_relative_error(
            erf, [](double x) { return std::erf(x); }, -1e-4f, 1e-4f) < 1e-6);
}

TEST_CASE("exp, tanh and erf at the ends") {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  CHECK(vector_math::exp(-kInfinity) == 0.0f);
  CHECK(vector_math::exp(-1000.0f) == 0.0f);
  CHECK(vector_math::exp(kInfinity) == kInfinity);
  CHECK(vector_math::exp(100.0f) == kInfinity);
  CHECK(vector_math::exp(0.0f) == 1.0f);
  CHECK(std::isnan(vector_math::exp(std::nanf(""))));
  CHECK(vector_math::tanh(kInfinity) == 1.0f);
  CHECK(vector_math::tanh(-kInfinity) == -1.0f);
  CHECK(std::isnan(vector_math::tanh(std::nanf(""))));
  CHECK(vector_math::erf(kInfinity) == 1.0f);
  CHECK(vector_math::erf(-kInfinity) == -1.0f);
  CHECK(std::isnan(vector_math::erf(std::nanf(""))));
}

TEST_CASE("Activations against their textbook formulas") {
  for (double x : {-9.0, -2.5, -0.3, 0.0, 0.1, 1.7, 8.0}) {
    double u = std::sqrt(2.0 / 3.14159265358979323846) * (x + 0.044715 * x * x * x);
    CHECK(activation::Gelu::value(x) == Approx(0.5 * x * (1 + std::tanh(u))).margin(1e-14));
    CHECK(activation::GeluErf::value(x) ==
          Approx(0.5 * x * std::erfc(-x / std::sqrt(2.0))).margin(1e-14));
    CHECK(activation::Silu::value(x) == Approx(x / (1 + std::exp(-x))));
    CHECK(activation::Relu::value(x) == std::max(x, 0.0));
  }
  CHECK(activation_of("swiglu") == Activation::swiglu);
  CHECK_THROWS_WITH(activation_of("gulu"), Catch::Matchers::Contains("gelu_erf"));
}
