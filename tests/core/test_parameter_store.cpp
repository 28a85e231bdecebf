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
                  .shard = {.dim = 0, .begin = begin, .global = 6}}) {
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

TEST_CASE("shards: a rank's part of the whole tensor, along the first dimension alone") {
  struct Part : Module {
    Parameter weight;
    explicit Part(Shard shard) : weight({.shape = {2, 3}, .shard = shard}) {
      add("weight", weight);
    }
  };
  Part whole({}), part({.dim = 0, .begin = 3, .global = 5});
  CHECK(whole.weight.spec().global_shape() == Shape{2, 3});
  CHECK(part.weight.spec().global_shape() == Shape{5, 3});
  std::vector<float> numbers{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14};
  Tensor all = Tensor::from(std::span<const float>(numbers), {5, 3});
  CHECK(part.weight.spec().part_of(all).to_floats() == std::vector<float>{9, 10, 11, 12, 13, 14});
  CHECK_THROWS_WITH(whole.weight.spec().part_of(all),
                    "a tensor of shape [5, 3] for a parameter of shape [2, 3]");
  Part fits({.dim = 0, .begin = 3, .global = 5});
  CHECK_NOTHROW(ParameterStore(fits, {}));
  auto refused = [](Shard shard, const char* why) {
    Part wrong(shard);
    CHECK_THROWS_WITH(ParameterStore(wrong, {}), why);
  };
  refused({.dim = 0, .begin = 4, .global = 5}, "weight: 2 entries from 4 on are no part of 5");
  refused({.dim = 0, .begin = -1, .global = 5}, "weight: 2 entries from -1 on are no part of 5");
  refused({.dim = 1, .global = 9},
          "weight: a part along dimension 1; ranks can only share the first one, 0");
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
