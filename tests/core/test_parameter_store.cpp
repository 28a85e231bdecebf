#include <cmath>

#include "core/nn/parameter_store.h"
#include "tests/support/catch.h"

using namespace adagate;

namespace {

struct Pair : Module {
  Parameter first{{.shape = {120, 90}, .init = Init::normal(0.5)}};
  Parameter second{{.shape = {120, 90}, .init = Init::normal(0.02)}};
  Parameter gain{{.shape = {7}, .init = Init::ones()}};
  Parameter shift{{.shape = {7}}};
  Pair() {
    add("first", first);
    add("second", second);
    add("gain", gain);
    add("shift", shift);
  }
};

std::vector<double> initial(const Parameter& p) {
  return p.master().to_doubles();
}

double mean_product(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum / static_cast<double>(a.size());
}

}  // namespace

TEST_CASE("initial weights: normal numbers of the spread asked for, each parameter its own") {
  Pair model;
  ParameterStore store(model, {});
  store.initialize(3);
  const auto first = initial(model.first), second = initial(model.second);
  // Five standard deviations of each mean over 10,800 independent numbers.
  const double tolerance = 5 / std::sqrt(10800.0);
  const std::vector<double> ones(first.size(), 1.0);
  CHECK(std::abs(mean_product(first, ones)) < 0.5 * tolerance);
  CHECK(mean_product(first, first) == Approx(0.25).epsilon(tolerance * std::sqrt(2.0)));
  CHECK(mean_product(second, second) == Approx(0.0004).epsilon(tolerance * std::sqrt(2.0)));
  CHECK(std::abs(mean_product(first, second)) < 0.5 * 0.02 * tolerance);
  CHECK(initial(model.gain) == std::vector<double>(7, 1.0));
  CHECK(initial(model.shift) == std::vector<double>(7, 0.0));

  store.initialize(4);
  CHECK(std::abs(mean_product(first, initial(model.first))) < 0.25 * tolerance);
  store.initialize(3);
  CHECK(initial(model.first) == first);
  CHECK(initial(model.second) == second);
}

TEST_CASE("initial weights: a rank's experts start as they would on one rank") {
  struct Experts : Module {
    Parameter weight;
    Experts(int64_t count, int64_t begin)
        : weight({.shape = {count, 3, 50},
                  .init = Init::normal(1.0),
                  .group = ParameterGroup::expert,
                  .global_dim0 = 6,
                  .shard_begin = begin}) {
      add("weight", weight);
    }
  };
  Experts all(6, 0);
  ParameterStore whole(all, {});
  whole.initialize(3);
  for (int64_t begin : {0, 2, 5}) {
    const int64_t count = begin == 5 ? 1 : 2;
    Experts part(count, begin);
    ParameterStore store(part, {});
    store.initialize(3);
    CHECK(initial(part.weight) == all.weight.master().slice(begin, begin + count).to_doubles());
  }
}

TEST_CASE("a step's gradients: the first contribution overwrites, what none reached is zero") {
  Pair model;
  ParameterStore store(model, {});
  auto reach = [](const Parameter& p, double value) {
    p.tensor().slot()->add(Tensor::full(p.spec().shape, DType::f32, value));
  };
  auto everywhere = [](const Parameter& p, float value) {
    return p.grad().to_floats() == std::vector<float>(static_cast<size_t>(p.numel()), value);
  };
  store.clear_gradients();
  for (Parameter* p : store.parameters()) reach(*p, 2.0);
  store.zero_untouched_gradients();
  for (Parameter* p : store.parameters()) CHECK(everywhere(*p, 2.0f));

  store.clear_gradients();
  reach(model.second, 3.0);
  reach(model.gain, 3.0);
  reach(model.gain, 4.0);
  store.zero_untouched_gradients();
  CHECK(everywhere(model.first, 0.0f));
  CHECK(everywhere(model.second, 3.0f));
  CHECK(everywhere(model.gain, 7.0f));
  CHECK(everywhere(model.shift, 0.0f));
}

TEST_CASE("two parameters of one name are refused") {
  struct Twice : Module {
    Parameter a{{.shape = {2}}}, b{{.shape = {3}}};
    Pair inner;
    Twice() {
      add("inner", inner);
      add("weight", a);
      add("inner.gain", b);
    }
  };
  Twice model;
  CHECK_THROWS_WITH(ParameterStore(model, {}), "two parameters are called inner.gain");
}
