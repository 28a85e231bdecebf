#include <limits>

#include "core/base/vector_math.h"
#include "core/ops/activation_math.h"
#include "core/ops/cpu/vector_functions.h"
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

TEST_CASE("exp, exp2 and tanh in f32 are within 1e-6") {
  auto exp = [](float x) { return vector_math::exp(x); };
  auto tanh = [](float x) { return vector_math::tanh(x); };
  auto exp2 = [](float x) { return vector_math::exp2(x); };
  CHECK(worst_relative_error(
            exp, [](double x) { return std::exp(x); }, -87.2f, 88.7f) < 1e-6);
  CHECK(worst_relative_error(
            exp, [](double x) { return std::exp(x); }, -1e-3f, 1e-3f) < 2e-7);
  CHECK(worst_relative_error(
            tanh, [](double x) { return std::tanh(x); }, -12.0f, 12.0f) < 1e-6);
  CHECK(worst_relative_error(
            tanh, [](double x) { return std::tanh(x); }, -1e-4f, 1e-4f) < 1e-6);
  CHECK(worst_relative_error(
            exp2, [](double x) { return std::exp2(x); }, -126.0f, 127.9f) < 2e-7);
}

TEST_CASE("The normal distribution in f32") {
  auto exact = [](double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); };
  auto cdf = [](float x) { return vector_math::normal_cdf(x); };
  CHECK(worst_relative_error(cdf, exact, -5.0f, 0.0f) < 4e-6);
  CHECK(worst_relative_error(cdf, exact, 0.0f, 9.0f) < 2.4e-7);
  CHECK(cdf(-1e30f) == 0.0f);
  CHECK(cdf(1e30f) == 1.0f);
  CHECK(std::isnan(cdf(std::nanf(""))));
}

TEST_CASE("Functions of a vector are those of its numbers") {
  using Vector = Vec<float>;
  using Functions = vector_math::Functions<vector_math::Floats>;
  auto check_lanes = [](auto of_vector, auto of_number, float low, float high) {
    alignas(kVectorBytes) float in[kLanes<float>], out[kLanes<float>];
    for (int n = 0; n < 1000; ++n) {
      for (int i = 0; i < kLanes<float>; ++i)
        in[i] = low + (high - low) * static_cast<float>(n + 1000 * i) / (1000 * kLanes<float>);
      store<float>(out, of_vector(load(in)));
      for (int i = 0; i < kLanes<float>; ++i) {
        INFO(in[i]);
        CHECK(out[i] == Approx(of_number(in[i])).epsilon(3e-6).margin(1.2e-38));
      }
    }
  };
  using namespace activation;
  check_lanes([](Vector x) { return Functions::exp2(x); },
              [](float x) { return vector_math::exp2(x); }, -130.0f, 125.9f);
  check_lanes([](Vector x) { return Functions::normal_cdf(x); },
              [](float x) { return vector_math::normal_cdf(x); }, -5.0f, 9.0f);
  check_lanes([](Vector x) { return Gelu::value(x); }, [](float x) { return Gelu::value(x); },
              -4.0f, 9.0f);
  check_lanes([](Vector x) { return Silu::derivative(x); },
              [](float x) { return Silu::derivative(x); }, -1.0f, 9.0f);
  for (float x : {-INFINITY, -1e30f, 1e30f, INFINITY})
    CHECK(Functions::exp2(broadcast(x))[0] == (x < 0 ? 0.0f : INFINITY));
  CHECK(std::isnan(Functions::exp2(broadcast(std::nanf("")))[0]));
  CHECK(Gelu::value(broadcast(-1e20f))[0] == 0.0f);
  CHECK(Gelu::value(broadcast(1e20f))[0] == 1e20f);
}

TEST_CASE("exp, exp2 and tanh at the ends") {
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
  CHECK(vector_math::exp2(-kInfinity) == 0.0f);
  CHECK(vector_math::exp2(-127.0f) == 0.0f);
  CHECK(vector_math::exp2(128.0f) == kInfinity);
  CHECK(vector_math::exp2(kInfinity) == kInfinity);
  CHECK(vector_math::exp2(-3.0f) == 0.125f);
  CHECK(std::isnan(vector_math::exp2(std::nanf(""))));
}

namespace {

// Far from 0 an activation is x or 0, its derivative 1 or 0; NaN comes through. `of` makes a T of a
// number, `first` takes a number out of one.
template <class T, class Of, class First>
void check_far_out(Of of, First first) {
  using Scalar = activation::ScalarOf<T>;
  auto check = [&](auto f, std::string_view name) {
    using F = decltype(f);
    for (double exponent : {4.0, 9.0, 18.9, 19.3, 20.0, 30.0, 38.0, 154.2, 300.0}) {
      if (exponent > std::numeric_limits<Scalar>::max_exponent10) continue;
      const auto x = static_cast<Scalar>(std::pow(10.0, exponent));
      INFO(name << " at " << x << " and its negative, in " << sizeof(Scalar) << " bytes");
      CHECK(first(F::value(of(x))) == x);
      CHECK(first(F::value(of(-x))) == 0);
      CHECK(first(F::derivative(of(x))) == 1);
      CHECK(first(F::derivative(of(-x))) == 0);
    }
    CHECK(std::isnan(first(F::value(of(std::numeric_limits<Scalar>::quiet_NaN())))));
  };
  check(activation::Gelu{}, "gelu");
  check(activation::GeluErf{}, "gelu_erf");
  check(activation::Relu{}, "relu");
  check(activation::Silu{}, "silu");
}

}  // namespace

TEST_CASE("Activations far from 0, and of NaN") {
  auto number = [](auto x) { return x; };
  check_far_out<float>(number, number);
  check_far_out<double>(number, number);
  check_far_out<vector_math::Floats>([](float x) { return broadcast(x); },
                                     [](auto x) { return x[kLanes<float> - 1]; });
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
