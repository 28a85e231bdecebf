#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "core/base/rng.h"
#include "core/optim/adamw.h"
#include "tests/support/catch.h"

using namespace adagate;

namespace {

struct Toy : Module {
  Parameter matrix{{.shape = {33, 31}, .init = Init::normal(1.0)}};
  Parameter gain{{.shape = {100}, .init = Init::ones(), .decay = false}};
  Parameter experts{
      {.shape = {2, 700}, .init = Init::normal(0.5), .group = ParameterGroup::expert}};
  Toy() {
    add("matrix", matrix);
    add("gain", gain);
    add("experts", experts);
  }
};

void fill_gradient(Parameter& p, int64_t step) {
  Rng rng(7, RngStream::test, static_cast<uint64_t>(step), hash_name(p.name()));
  std::vector<double> g(static_cast<size_t>(p.numel()));
  for (size_t i = 0; i < g.size(); ++i) g[i] = rng.normal(i);
  p.grad().copy_from(Tensor::from(std::span<const double>(g), p.spec().shape));
}

}  // namespace

TEST_CASE("adamw: follows the equations, decays matrices alone, in f32 and f64") {
  DType dtype = GENERATE(DType::f32, DType::f64);
  Toy toy;
  ParameterStore store(toy, {.master = dtype, .compute = dtype});
  store.initialize(3);
  OptimizerConfig config{.beta1 = 0.8, .beta2 = 0.9, .epsilon = 1e-6, .weight_decay = 0.3};
  AdamW adamw(store, config);
  std::vector<std::vector<double>> value, m, v;
  for (Parameter* p : store.parameters()) {
    value.push_back(p->master().to_doubles());
    m.emplace_back(value.back().size(), 0.0);
    v.emplace_back(value.back().size(), 0.0);
  }
  for (int64_t step = 1; step <= 4; ++step) {
    double lr = 0.01 * static_cast<double>(step), clip = 0.5;
    for (Parameter* p : store.parameters()) fill_gradient(*p, step);
    adamw.step(lr, clip);
    for (size_t k = 0; k < value.size(); ++k) {
      const Parameter& p = *store.parameters()[k];
      auto g = p.grad().to_doubles();
      auto now = p.master().to_doubles();
      double worst = 0;
      for (size_t i = 0; i < g.size(); ++i) {
        double gi = g[i] * clip;
        m[k][i] = 0.8 * m[k][i] + 0.2 * gi;
        v[k][i] = 0.9 * v[k][i] + 0.1 * gi * gi;
        double mean = m[k][i] / (1 - std::pow(0.8, step));
        double square = v[k][i] / (1 - std::pow(0.9, step));
        if (p.name() != "gain") value[k][i] -= lr * 0.3 * value[k][i];
        value[k][i] -= lr * mean / (std::sqrt(square) + 1e-6);
        worst = std::max(worst, std::abs(value[k][i] - now[i]));
      }
      INFO(p.name() << " step " << step);
      REQUIRE(worst < (dtype == DType::f64 ? 1e-13 : 3e-6));
    }
  }
  REQUIRE(adamw.steps() == 4);
  REQUIRE(adamw.second_moment(toy.experts).to_doubles()[5] == Approx(v[2][5]).epsilon(1e-5));
}

TEST_CASE("adamw: refreshes the bf16 copies with the values") {
  Toy toy;
  ParameterStore store(toy, {.compute = DType::bf16});
  store.initialize(3);
  AdamW adamw(store, {});
  for (Parameter* p : store.parameters()) fill_gradient(*p, 1);
  adamw.step(0.1, 1.0);
  REQUIRE(toy.matrix.tensor().dtype() == DType::bf16);
  auto copies = toy.matrix.tensor().to_floats(), values = toy.matrix.master().to_floats();
  for (size_t i = 0; i < values.size(); ++i)
    REQUIRE(copies[i] == static_cast<float>(bfloat16(values[i])));
}

namespace {

// The elements of rank `part` of `parts`, in three ranges of each group, cut anywhere.
OwnedRanges owned_by(ParameterStore& store, int64_t part, int64_t parts) {
  OwnedRanges owned;
  for (ParameterGroup g : kAllGroups) {
    int64_t n = store.group(g).size();
    for (int64_t bucket = 0; bucket < 3; ++bucket) {
      int64_t begin = n * bucket / 3, length = n * (bucket + 1) / 3 - begin;
      auto at = [&](int64_t p) { return begin + (p == 0 ? 0 : length * p / parts + p % 2); };
      owned[g].push_back({at(part), part + 1 == parts ? begin + length : at(part + 1)});
    }
  }
  return owned;
}

std::vector<double> bits_of(const Tensor& x) {
  return x ? x.to_doubles() : std::vector<double>();
}

}  // namespace

TEST_CASE("adamw: owned elements become what they are where all are owned, no others change") {
  DType compute = GENERATE(DType::f32, DType::bf16);
  int64_t parts = GENERATE(1, 2, 3);
  for (int64_t part = 0; part < parts; ++part) {
    CAPTURE(parts, part);
    Toy whole_toy, toy;
    ParameterStore whole_store(whole_toy, {.compute = compute}), store(toy, {.compute = compute});
    whole_store.initialize(3);
    store.initialize(3);
    AdamW whole(whole_store, {});
    OwnedRanges owned = owned_by(store, part, parts);
    AdamW adamw(store, {}, owned);
    std::vector<std::vector<double>> start;
    for (ParameterGroup g : kAllGroups) start.push_back(bits_of(store.group(g).master));
    for (int64_t step = 1; step <= 3; ++step) {
      for (auto* parameters : {&whole_store.parameters(), &store.parameters()})
        for (Parameter* p : *parameters) fill_gradient(*p, step);
      whole.step(0.01, 0.7);
      adamw.step(0.01, 0.7);
    }
    for (ParameterGroup g : kAllGroups) {
      auto want = start[static_cast<size_t>(g)], all = bits_of(whole_store.group(g).master);
      for (const FlatRange& r : owned[g])
        std::copy(all.begin() + r.begin, all.begin() + r.end, want.begin() + r.begin);
      CHECK(bits_of(store.group(g).master) == want);
      if (compute == DType::f32) continue;
      for (double& x : want) x = static_cast<float>(bfloat16(static_cast<float>(x)));
      CHECK(bits_of(store.group(g).compute) == want);
    }
  }
}

TEST_CASE("adamw: a parameter's moments, where all are owned, in one range or in several") {
  Toy toy;
  ParameterStore store(toy, {});
  store.initialize(3);
  for (Parameter* p : store.parameters()) fill_gradient(*p, 1);
  AdamW whole(store, {});
  whole.step(0.0, 1.0);
  CHECK(whole.states().size() == 2 * store.parameters().size());
  for (const StateTensor& s : whole.states()) CHECK(s.shard == Shard{});

  OwnedRanges owned;
  owned[ParameterGroup::dense] = {{5, 50}, {toy.gain.offset() - 1, toy.gain.offset() + 100}};
  AdamW adamw(store, {}, owned);
  adamw.step(0.0, 1.0);
  CHECK(adamw.second_moment(toy.gain).to_doubles() == whole.second_moment(toy.gain).to_doubles());
  CHECK_THROWS_WITH(adamw.first_moment(toy.matrix),
                    Catch::Contains("matrix: its moments are not all owned by this rank"));
  std::vector<StateTensor> states = adamw.states();
  REQUIRE(states.size() == 6);
  CHECK(states[0].name == "adam_m/matrix");
  CHECK(states[0].shape == Shape{33, 31});
  CHECK(states[0].shard == Shard{.dim = Shard::kElements, .begin = 5, .global = 33 * 31});
  CHECK(states[0].tensor.to_doubles() ==
        whole.first_moment(toy.matrix).reshape({33 * 31}).slice(5, 50).to_doubles());
  CHECK(states[3].name == "adam_v/gain");
  CHECK(states[3].tensor.to_doubles() == whole.second_moment(toy.gain).to_doubles());
  CHECK(states[4].tensor.numel() == 0);  // nothing of the experts

  owned[ParameterGroup::dense] = {{5, 50}, {60, 70}};
  CHECK_THROWS_WITH(AdamW(store, {}, owned).states(),
                    Catch::Contains("matrix: several ranges of its moments are owned"));
}

TEST_CASE("adamw: owned moments are told by their place in the parameter of all ranks") {
  struct Experts : Module {
    Parameter weight{{.shape = {2, 5, 3},
                      .group = ParameterGroup::expert,
                      .shard = {.dim = 0, .begin = 4, .global = 8}}};
    Experts() { add("weight", weight); }
  };
  Experts experts;
  ParameterStore store(experts, {});
  OwnedRanges owned;
  owned[ParameterGroup::expert] = {{7, 20}};
  std::vector<StateTensor> states = AdamW(store, {}, owned).states();
  REQUIRE(states.size() == 2);
  CHECK(states[1].name == "adam_v/weight");
  CHECK(states[1].shape == Shape{8, 5, 3});
  CHECK(states[1].shard == Shard{.dim = Shard::kElements, .begin = 4 * 15 + 7, .global = 8 * 15});
  CHECK(states[1].tensor.numel() == 13);
}

TEST_CASE("adamw: ranges that cannot be owned are refused") {
  Toy toy;
  ParameterStore store(toy, {});
  int64_t n = store.group(ParameterGroup::dense).size();
  auto refused = [&](std::vector<FlatRange> ranges, const std::string& within) {
    OwnedRanges owned;
    owned[ParameterGroup::dense] = std::move(ranges);
    CHECK_THROWS_WITH(AdamW(store, {}, owned),
                      Catch::Contains("of the dense parameters can't be owned") &&
                          Catch::Contains("within " + within));
  };
  refused({{-1, 4}}, fmt::format("[0, {})", n));
  refused({{0, n + 1}}, fmt::format("[0, {})", n));
  refused({{5, 4}}, fmt::format("[0, {})", n));
  refused({{0, 5}, {4, 9}}, fmt::format("[5, {})", n));
}

TEST_CASE("sum of squares: exact on integers, whatever the size") {
  for (int64_t n : {0, 1, 31, 33, 1000, 40000}) {
    std::vector<float> x(static_cast<size_t>(n));
    double expected = 0;
    for (int64_t i = 0; i < n; ++i) {
      x[static_cast<size_t>(i)] = static_cast<float>(i % 7 - 3);
      expected += static_cast<double>((i % 7 - 3) * (i % 7 - 3));
    }
    REQUIRE(sum_of_squares(Tensor::from(std::span<const float>(x), {n})) == expected);
  }
}
