// Norms, embedding, dropout and elementwise ops against formulas written here; their gradients are
// checked with all other ops' in test_op_cases.cpp.
#include <cmath>
#include <functional>
#include <limits>

#include "core/autograd/tape.h"
#include "core/ops/bias_activation.h"
#include "core/ops/dropout.h"
#include "core/ops/elementwise.h"
#include "core/ops/embedding.h"
#include "core/ops/norm.h"
#include "tests/support/catch.h"

#ifdef _OPENMP
#include <omp.h>
#endif

using namespace adagate;

namespace {

Tensor random_tensor(const Shape& shape, uint64_t site, DType dtype = DType::f64) {
  Rng rng(7, RngStream::test, 0, site);
  std::vector<double> values(static_cast<size_t>(shape.numel()));
  for (size_t i = 0; i < values.size(); ++i) values[i] = rng.normal(i);
  return Tensor::from(std::span<const double>(values), shape, DType::f64).to(dtype);
}

Tensor as_leaf(Tensor x) {
  x.set_slot(std::make_shared<GradSlot>());
  return x;
}

// Rows of i64 ids 100, 101, ...
Tensor ids(int64_t n) {
  std::vector<int64_t> v(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) v[static_cast<size_t>(i)] = 100 + 7 * i;
  return Tensor::from(std::span<const int64_t>(v), {n});
}

using Fn = std::function<Tensor(const std::vector<Tensor>&)>;

// Gradients of sum(f(inputs) * weights) by the tape.
std::vector<std::vector<double>> tape_gradients(const Fn& f, std::vector<Tensor> inputs) {
  for (Tensor& x : inputs) x = as_leaf(x);
  Tape tape;
  {
    Recording on(tape);
    Tensor y = f(inputs);
    tape.backward(y, random_tensor(y.shape(), 99, y.dtype()));
  }
  std::vector<std::vector<double>> out;
  for (Tensor& x : inputs) out.push_back(x.slot()->value().to_doubles());
  return out;
}

}  // namespace

TEST_CASE("layer_norm and rms_norm follow their formulas") {
  Tensor x = random_tensor({3, 5}, 1), gamma = random_tensor({5}, 2), beta = random_tensor({5}, 3);
  auto ln = layer_norm(x, gamma, beta, 1e-3).to_doubles();
  auto rms = rms_norm(x, gamma, 1e-3).to_doubles();
  const double* v = x.data<double>();
  for (int r = 0; r < 3; ++r) {
    double mean = 0, square = 0, variance = 0;
    for (int c = 0; c < 5; ++c) mean += v[r * 5 + c] / 5, square += v[r * 5 + c] * v[r * 5 + c] / 5;
    for (int c = 0; c < 5; ++c) variance += std::pow(v[r * 5 + c] - mean, 2) / 5;
    for (int c = 0; c < 5; ++c) {
      const double g = gamma.data<double>()[c], b = beta.data<double>()[c];
      CHECK(ln[r * 5 + c] ==
            Approx((v[r * 5 + c] - mean) / std::sqrt(variance + 1e-3) * g + b).epsilon(1e-12));
      CHECK(rms[r * 5 + c] == Approx(v[r * 5 + c] / std::sqrt(square + 1e-3) * g).epsilon(1e-12));
    }
  }
}

TEST_CASE("norms in bf16 stay within its rounding and refuse wrong shapes") {
  Tensor x = random_tensor({33, 48}, 1), gamma = random_tensor({48}, 2);
  auto exact = rms_norm(x, gamma, 1e-5).to_doubles();
  auto rounded = rms_norm(x.to(DType::bf16), gamma.to(DType::f32), 1e-5).to_doubles();
  for (size_t i = 0; i < exact.size(); ++i) CHECK(rounded[i] == Approx(exact[i]).epsilon(0.02));
  CHECK_THROWS_WITH(rms_norm(x, random_tensor({47}, 3), 1e-5),
                    "rms_norm: x has 48 columns, gamma 47");
  CHECK_THROWS_AS(rms_norm(x.to(DType::bf16), gamma.to(DType::bf16), 1e-5), Error);
  CHECK(rms_norm(Tensor::empty({0, 48}, DType::f64), gamma, 1e-5).numel() == 0);
  CHECK_THROWS_WITH(layer_norm(x, gamma, {}, 1e-5), "layer_norm: beta is empty");
}

TEST_CASE("norm gradients of parameters accumulate into f32 and do not depend on threads") {
  Tensor x = random_tensor({100, 40}, 1, DType::f32);
  auto run = [&](int threads) {
#ifdef _OPENMP
    omp_set_num_threads(threads);
#else
    (void)threads;
#endif
    return tape_gradients(
        [](auto& in) { return layer_norm(in[0], in[1], in[2], 1e-5); },
        {x, random_tensor({40}, 2, DType::f32), random_tensor({40}, 3, DType::f32)});
  };
  auto one = run(1), two = run(2);
  CHECK(one == two);
}

TEST_CASE("activations of numbers far from 0, and of NaN, have sound gradients") {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::nanf("");
  for (Activation a : {Activation::gelu, Activation::gelu_erf, Activation::relu, Activation::silu})
    for (DType type : {DType::f64, DType::f32, DType::bf16}) {
      INFO(name_of(a) << " in " << name_of(type));
      // Whole vectors and a rest.
      constexpr int64_t n = 21;
      for (double x : {3e4, 1e19, 2e19, 1e30, 3e38}) {
        auto gradient = [&](double value) {
          return tape_gradients([&](auto& in) { return bias_activation(in[0], {}, a); },
                                {Tensor::full({1, n}, type, value)})[0];
        };
        CHECK(gradient(x) == random_tensor({1, n}, 99, type).to_doubles());
        CHECK(gradient(-x) == std::vector<double>(n, 0.0));
      }
      for (float y : bias_activation(Tensor::full({1, n}, type, nan), {}, a).to_floats())
        CHECK(std::isnan(y));
      for (float y : bias_activation(Tensor::full({1, n}, type, inf), {}, a).to_floats())
        CHECK(y == inf);
    }
  CHECK_THROWS_WITH(bias_activation(random_tensor({2, 5}, 1), {}, Activation::swiglu),
                    "bias_activation: swiglu needs an even number of columns, 5");
}

TEST_CASE("embedding looks rows up and sums their gradients") {
  std::vector<int32_t> t = {2, 0, 2, 3, 2}, p = {0, 1, 2, 0, 1};
  Tensor tokens = Tensor::from(std::span<const int32_t>(t), {5});
  Tensor positions = Tensor::from(std::span<const int32_t>(p), {5});
  std::vector<Tensor> tables = {random_tensor({4, 3}, 1), random_tensor({3, 3}, 2)};
  auto f = [&](const std::vector<Tensor>& in) {
    return embedding(tokens, in[0], positions, in[1]);
  };
  Tensor y = f(tables);
  for (int i = 0; i < 5; ++i)
    for (int c = 0; c < 3; ++c)
      CHECK(y.data<double>()[i * 3 + c] ==
            tables[0].data<double>()[t[i] * 3 + c] + tables[1].data<double>()[p[i] * 3 + c]);
}

TEST_CASE("embedding refuses ids outside of its tables") {
  Tensor tokens = random_tensor({4, 3}, 1), positions = random_tensor({3, 3}, 2);
  auto look_up = [&](int32_t token, int32_t position) {
    return embedding(Tensor::from(std::vector<int32_t>{1, token}, {2}), tokens,
                     Tensor::from(std::vector<int32_t>{position, 0}, {2}), positions);
  };
  CHECK_NOTHROW(look_up(3, 2));
  CHECK_THROWS_WITH(look_up(4, 0), "embedding: token id 4 at place 1 is outside the table of 4");
  CHECK_THROWS_WITH(look_up(-1, 0), "embedding: token id -1 at place 1 is outside the table of 4");
  CHECK_THROWS_WITH(look_up(0, 3), "embedding: position id 3 at place 0 is outside the table of 3");
  CHECK_THROWS_WITH(look_up(0, -2),
                    "embedding: position id -2 at place 0 is outside the table of 3");
}

TEST_CASE("embedding adds to an f32 parameter gradient, and clears untouched rows otherwise") {
  std::vector<int32_t> t = {1, 1};
  Tensor tokens = Tensor::from(std::span<const int32_t>(t), {2});
  Tensor table = Tensor::full({3, 2}, DType::bf16, 1.0);
  Tensor buffer = Tensor::full({3, 2}, DType::f32, 5.0);
  auto slot = std::make_shared<GradSlot>(buffer);
  table.set_slot(slot);
  for (int pass = 0; pass < 2; ++pass) {
    Tape tape;
    Recording on(tape);
    Tensor y = embedding(tokens, table, {}, {});
    tape.backward(y, 1.0);
    const float once = 2.0f * static_cast<float>(pass + 1);
    CHECK(buffer.to_floats() == std::vector<float>{0, 0, once, once, 0, 0});
  }
}

TEST_CASE("dropout keeps the right share, scales it, and addresses masks by row id") {
  DropoutSite site{Rng(3, RngStream::dropout, 5, 1), 0.25};
  Tensor x = Tensor::full({200, 96}, DType::f32, 1.0);
  auto y = dropout(x, site, ids(200)).to_floats();
  int64_t kept = 0;
  for (float v : y) {
    CHECK((v == 0.0f || v == Approx(1 / 0.75)));
    kept += v != 0.0f;
  }
  CHECK(static_cast<double>(kept) / static_cast<double>(y.size()) == Approx(0.75).margin(0.01));
  // Rows 3.. alone draw the same masks as in the whole.
  auto part = dropout(x.slice(3, 200), site, ids(200).slice(3, 200)).to_floats();
  CHECK(part == std::vector<float>(y.begin() + 3 * 96, y.end()));
  CHECK_THROWS_AS(dropout(x, site, ids(199)), Error);
  CHECK_THROWS_AS(dropout(x, DropoutSite{site.rng, 1.0}, ids(200)), Error);
}

TEST_CASE("bias_dropout_add without bias adds what dropout gives") {
  DropoutSite site{Rng(3, RngStream::dropout, 5, 1), 0.4};
  Tensor x = random_tensor({2, 600}, 1), zero = Tensor::zeros({2, 600}, DType::f64);
  CHECK(bias_dropout_add(x, {}, zero, site, ids(2)).to_doubles() ==
        dropout(x, site, ids(2)).to_doubles());
}

TEST_CASE("elementwise ops are exact at every place of large tensors") {
  constexpr int64_t n = 3 * 8192 + 5;  // several shares, and a rest
  for (DType type : {DType::f64, DType::f32, DType::bf16}) {
    INFO(name_of(type));
    Tensor a = random_tensor({n}, 1, type), b = random_tensor({n}, 2, type);
    auto x = a.to_doubles(), y = b.to_doubles();
    std::vector<double> sums(n), products(n), scaled(n);
    for (size_t i = 0; i < x.size(); ++i) {
      sums[i] = x[i] + y[i];
      products[i] = x[i] * y[i];
      scaled[i] = -0.5 * x[i];
    }
    // Of two f32 or bf16 numbers f64 holds the product, and the sum up to one rounding.
    auto in_type = [&](const std::vector<double>& values) {
      return Tensor::from(std::span<const double>(values), {n}).to(type).to_doubles();
    };
    CHECK(mul(a, b).to_doubles() == in_type(products));
    CHECK(add(a, b).to_doubles() == in_type(sums));
    CHECK(scale(a, -0.5).to_doubles() == in_type(scaled));
    auto of_sum = tape_gradients([](auto& in) { return scale(sum(in[0]), 0.25); }, {a});
    CHECK(of_sum[0] == std::vector<double>(n, of_sum[0][0]));
    CHECK(of_sum[0][0] != 0);
  }
}

TEST_CASE("sum adds in f64, and add and mul refuse what is not alike") {
  CHECK(sum(Tensor::full({100000}, DType::f32, 0.1)).to_doubles()[0] ==
        Approx(10000).epsilon(1e-6));
  Tensor x = random_tensor({3, 4}, 1);
  CHECK_THROWS_WITH(add(x, random_tensor({4, 3}, 2)), "add: a is f64 [3, 4], b f64 [4, 3]");
  CHECK_THROWS_WITH(mul(x, random_tensor({4, 3}, 2)), "mul: a is f64 [3, 4], b f64 [4, 3]");
  for (DType other : {DType::f32, DType::bf16}) {
    CHECK_THROWS_AS(add(x, x.to(other)), Error);
    CHECK_THROWS_AS(mul(x.to(other), x), Error);
  }
}
