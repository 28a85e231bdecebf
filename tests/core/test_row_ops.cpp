// Norms, embedding, dropout and elementwise ops against formulas written here; their gradients are
// checked with all other ops' in test_op_cases.cpp.
#include <cmath>
#include <functional>

#include "core/autograd/tape.h"
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
  std::vector<int32_t> bad = {1, 4};
  CHECK_THROWS_WITH(embedding(Tensor::from(std::span<const int32_t>(bad), {2}), tables[0], {}, {}),
                    "embedding: token id 4 at place 1 is outside the table of 4");
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

TEST_CASE("sum adds in f64, and add refuses different shapes") {
  CHECK(sum(Tensor::full({100000}, DType::f32, 0.1)).to_doubles()[0] ==
        Approx(10000).epsilon(1e-6));
  CHECK_THROWS_AS(add(random_tensor({3, 4}, 1), random_tensor({4, 3}, 2)), Error);
}
