#include <cmath>

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
