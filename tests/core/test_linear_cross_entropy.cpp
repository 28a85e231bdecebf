#include "core/device/allocator.h"
#include "core/ops/linear_cross_entropy.h"
#include "tests/support/gradient_check.h"

using namespace adagate;
using namespace adagate::test;

namespace {

struct Plain {
  double sum = 0;
  int64_t valid = 0;
};

// -log softmax at the targets by the definition, in f64.
Plain plain_cross_entropy(const Tensor& x, const Tensor& w, const Tensor& targets) {
  Tensor z = logits(x.to(DType::f64), w.to(DType::f64));
  Plain result;
  for (int64_t r = 0; r < z.rows(); ++r) {
    int32_t target = targets.data<int32_t>()[r];
    if (target < 0) continue;
    const double* row = z.data<double>() + r * z.cols();
    double sum = 0;
    for (int64_t v = 0; v < z.cols(); ++v) sum += std::exp(row[v] - row[target]);
    result.sum += std::log(sum);
    result.valid++;
  }
  return result;
}

}  // namespace

TEST_CASE("The loss over a large vocabulary in several chunks equals the definition") {
  constexpr int64_t n = 700, width = 16, vocabulary = 50257;
  Tensor x = random_normal({n, width}, 1), w = random_normal({vocabulary, width}, 2);
  Tensor targets = random_integers({n}, 3, -1, vocabulary);
  for (int64_t r = 0; r < n; r += 5) targets.data<int32_t>()[r] = -1;
  for (DType type : {DType::f32, DType::bf16}) {
    Tensor xt = x.to(type), wt = w.to(type);
    Plain expected = plain_cross_entropy(xt, wt, targets);
    CrossEntropy got = linear_cross_entropy(xt, wt, targets, 0.5);
    CHECK(got.valid == expected.valid);
    CHECK(got.sum == Approx(expected.sum).epsilon(1e-6));
    CHECK(got.loss.to_floats()[0] == Approx(0.5 * expected.sum).epsilon(1e-6));
    CHECK(got.loss.dtype() == DType::f32);
    CHECK_FALSE(got.loss.requires_grad());
  }
}

TEST_CASE("Gradients don't depend on how tokens are cut into chunks") {
  // 700 rows need several chunks at this vocabulary; 70 rows fit into one.
  constexpr int64_t n = 700, width = 8, vocabulary = 50257;
  Tensor x = random_normal({n, width}, 1).to(DType::f32);
  Tensor w = random_normal({vocabulary, width}, 2).to(DType::f32);
  Tensor targets = random_integers({n}, 3, 0, vocabulary);
  auto gradients = [&](int64_t step) {
    Tensor dx = Tensor::empty({n, width}, DType::f32);
    Tensor weight = w.detach();
    weight.set_slot(std::make_shared<GradSlot>(Tensor::empty(w.shape(), DType::f32)));
    for (int64_t begin = 0; begin < n; begin += step) {
      Tape tape;
      Recording on(tape);
      Tensor piece = x.slice(begin, begin + step);
      piece.set_slot(std::make_shared<GradSlot>());
      auto loss = linear_cross_entropy(piece, weight, targets.slice(begin, begin + step), 1.0).loss;
      tape.backward(loss);
      dx.slice(begin, begin + step).copy_from(piece.slot()->value());
    }
    return std::pair{dx, weight.slot()->value().clone()};
  };
  auto [dx_whole, dw_whole] = gradients(n);
  auto [dx_pieces, dw_pieces] = gradients(70);
  CHECK(relative_error(dx_whole, dx_pieces) < 1e-5);
  CHECK(relative_error(dw_whole, dw_pieces) < 1e-5);
}

TEST_CASE("Extreme logits neither overflow nor lose the loss") {
  Tensor x = Tensor::full({1, 1}, DType::f32, 1.0);
  Tensor w = Tensor::from(std::vector<float>{500.0f, -500.0f, 499.0f}, {3, 1});
  auto loss_of = [&](int32_t target) {
    return linear_cross_entropy(x, w, Tensor::from(std::vector<int32_t>{target}, {1}), 1.0).sum;
  };
  CHECK(loss_of(0) == Approx(std::log1p(std::exp(-1.0))).epsilon(1e-6));
  CHECK(loss_of(1) == Approx(1000.0 + std::log1p(std::exp(-1.0))).epsilon(1e-6));
}

TEST_CASE("Wrong targets and another root than the loss are told") {
  Tensor x = random_normal({2, 4}, 1).to(DType::f32), w = random_normal({5, 4}, 2).to(DType::f32);
  auto targets = [](int32_t a, int32_t b) { return Tensor::from(std::vector{a, b}, {2}); };
  CHECK_THROWS_WITH(linear_cross_entropy(x, w, targets(1, 5), 1.0),
                    Catch::Matchers::Contains("target 5 of row 1"));
  CHECK_THROWS_AS(linear_cross_entropy(x, w, targets(-2, 0), 1.0), Error);
  x.set_slot(std::make_shared<GradSlot>());
  Tape tape;
  Recording on(tape);
  Tensor loss = linear_cross_entropy(x, w, targets(0, 1), 1.0).loss;
  CHECK_THROWS_WITH(tape.backward(loss, 2.0), Catch::Matchers::Contains("gradient 1"));
}

TEST_CASE("Logits of all tokens never exist at once") {
  constexpr int64_t n = 4096, width = 4, vocabulary = 20000;  // all logits: 328 MB
  Tensor x = random_normal({n, width}, 1).to(DType::f32);
  Tensor w = random_normal({vocabulary, width}, 2).to(DType::f32);
  x.set_slot(std::make_shared<GradSlot>());
  Tensor targets = random_integers({n}, 3, 0, vocabulary);
  int64_t before = allocator_stats().bytes_in_use;
  reset_peak_memory();
  Tape tape;
  Recording on(tape);
  linear_cross_entropy(x, w, targets, 1.0);
  CHECK(allocator_stats().peak_bytes_in_use - before < 120'000'000);
}
