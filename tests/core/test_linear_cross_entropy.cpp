#include <optional>

#include "core/base/phase_timer.h"
#include "core/device/allocator.h"
#include "core/ops/linear_cross_entropy.h"
#include "tests/support/gradient_check.h"
#include "tests/support/op_case_checks.h"
#include "tests/support/targets_for.h"

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

struct Definition {
  Tensor loss, dx, dw;  // f64
};

// scale * sum over rows r of -log softmax(w x_r) at the target, and its gradients.
Definition definition(const Tensor& x, const Tensor& w, const Tensor& targets, double scale) {
  const int64_t width = x.cols(), vocabulary = w.rows();
  Definition result{Tensor::zeros({1}, DType::f64), Tensor::zeros(x.shape(), DType::f64),
                    Tensor::zeros(w.shape(), DType::f64)};
  std::vector<double> p(static_cast<size_t>(vocabulary));
  for (int64_t r = 0; r < x.rows(); ++r) {
    const int64_t target = targets.data<int32_t>()[r];
    if (target < 0) continue;
    const double* row = x.data<double>() + r * width;
    double sum = 0;
    for (int64_t v = 0; v < vocabulary; ++v) {
      double logit = 0;
      for (int64_t d = 0; d < width; ++d) logit += row[d] * w.data<double>()[v * width + d];
      sum += p[static_cast<size_t>(v)] = std::exp(logit);
    }
    result.loss.data<double>()[0] -= scale * std::log(p[static_cast<size_t>(target)] / sum);
    for (int64_t v = 0; v < vocabulary; ++v) {
      const double dlogit = scale * (p[static_cast<size_t>(v)] / sum - (v == target ? 1.0 : 0.0));
      for (int64_t d = 0; d < width; ++d) {
        result.dx.data<double>()[r * width + d] += dlogit * w.data<double>()[v * width + d];
        result.dw.data<double>()[v * width + d] += dlogit * row[d];
      }
    }
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
    CrossEntropy got = linear_cross_entropy(xt, wt, targets_for(wt, targets), 0.5);
    CHECK(got.valid == expected.valid);
    CHECK(got.sum.to_doubles()[0] == Approx(expected.sum).epsilon(1e-6));
    CHECK(got.loss.to_floats()[0] == Approx(0.5 * expected.sum).epsilon(1e-6));
    CHECK(got.loss.dtype() == DType::f32);
    CHECK_FALSE(got.loss.requires_grad());
  }
}

TEST_CASE("Loss and gradients are those of the definition, beyond all block sizes") {
  constexpr int64_t n = 37, width = 5;
  auto loss = [](std::span<const Tensor> in) {
    return std::vector{linear_cross_entropy(in[0], in[1], targets_for(in[1], in[2]), 0.37).loss};
  };
  for (int64_t vocabulary : {1, 511, 513, 2049, 2560, 4099}) {
    for (bool masked : {false, true}) {
      for (DType type : {DType::f64, DType::f32, DType::bf16}) {
        INFO(vocabulary << " words, " << name_of(type) << ", masked " << masked);
        Tensor targets = random_integers({n}, 3, 0, static_cast<int32_t>(vocabulary));
        for (int64_t r = 1; masked && r < n; r += 3) targets.data<int32_t>()[r] = -1;
        // Logits large enough that many words have probabilities that rounding does not hide.
        auto inputs = rounded({{random_normal({n, width}, 1, 1.5)},
                               {random_normal({vocabulary, width}, 2), Role::parameter},
                               {targets, Role::constant}},
                              type);
        Definition expected = definition(inputs[0].values, inputs[1].values, targets, 0.37);
        Evaluation got = evaluate(inputs, loss, type);
        const double bound = type == DType::f64 ? 1e-12 : type == DType::f32 ? 2e-6 : 2e-2;
        CHECK(relative_error(got.outputs[0], expected.loss) < std::min(bound, 2e-6));
        CHECK(relative_error(got.gradients[0], expected.dx) < bound);
        CHECK(relative_error(got.gradients[1], expected.dw) < bound);
      }
    }
  }
}

TEST_CASE("Gradients don't depend on how tokens are cut into chunks") {
  // 640 rows need several chunks at this vocabulary, masked or not; 80 rows fit into one.
  constexpr int64_t n = 640, width = 8, vocabulary = 50257, piece_rows = 80;
  bool masked = GENERATE(false, true);
  Tensor x = random_normal({n, width}, 1).to(DType::f32);
  Tensor w = random_normal({vocabulary, width}, 2).to(DType::f32);
  Tensor targets = random_integers({n}, 3, 0, vocabulary);
  for (int64_t r = 3; masked && r < n; r += 7) targets.data<int32_t>()[r] = -1;
  auto gradients = [&](int64_t step) {
    Tensor dx = Tensor::empty({n, width}, DType::f32);
    Tensor weight = w.detach();
    weight.set_slot(std::make_shared<GradSlot>(Tensor::empty(w.shape(), DType::f32)));
    for (int64_t begin = 0; begin < n; begin += step) {
      Tape tape;
      Recording on(tape);
      Tensor piece = x.slice(begin, begin + step);
      piece.set_slot(std::make_shared<GradSlot>());
      auto loss = linear_cross_entropy(piece, weight,
                                       targets_for(weight, targets.slice(begin, begin + step)), 1.0)
                      .loss;
      tape.backward(loss);
      dx.slice(begin, begin + step).copy_from(piece.slot()->value());
    }
    return std::pair{dx, weight.slot()->value().clone()};
  };
  auto [dx_whole, dw_whole] = gradients(n);
  auto [dx_pieces, dw_pieces] = gradients(piece_rows);
  CHECK(relative_error(dx_whole, dx_pieces) < 1e-5);
  CHECK(relative_error(dw_whole, dw_pieces) < 1e-5);
}

TEST_CASE("Extreme logits neither overflow nor lose the loss") {
  Tensor x = Tensor::full({1, 1}, DType::f32, 1.0);
  Tensor w = Tensor::from(std::vector<float>{500.0f, -500.0f, 499.0f}, {3, 1});
  auto loss_of = [&](int32_t target) {
    return linear_cross_entropy(
               x, w, targets_for(w, Tensor::from(std::vector<int32_t>{target}, {1})), 1.0)
        .sum.to_doubles()[0];
  };
  CHECK(loss_of(0) == Approx(std::log1p(std::exp(-1.0))).epsilon(1e-6));
  CHECK(loss_of(1) == Approx(1000.0 + std::log1p(std::exp(-1.0))).epsilon(1e-6));
}

TEST_CASE("Label smoothing moves a share of the target to all words") {
  // As torch.nn.functional.cross_entropy has it.
  Tensor z = Tensor::from(std::vector<double>{1, 2, 0.5}, {1, 3});
  double lse = std::log(std::exp(1.0) + std::exp(2.0) + std::exp(0.5));
  double expected = lse - 0.7 * 2 - 0.3 * (1 + 2 + 0.5) / 3;
  CHECK(cross_entropy(z, loss_targets(std::vector<int32_t>{1}, 3), 1.0, 0.3).sum.to_doubles()[0] ==
        Approx(expected).epsilon(1e-12));
  CHECK_THROWS_WITH(cross_entropy(z, loss_targets(std::vector<int32_t>{1}, 3), 1.0, 1.0),
                    Catch::Matchers::Contains("label smoothing of 1"));
  // Two heads over one trunk: several roots of one pass.
  z.set_slot(std::make_shared<GradSlot>());
  Tape tape;
  std::vector<Tensor> roots;
  {
    Recording on(tape);
    for (int32_t target : {0, 2})
      roots.push_back(cross_entropy(z, loss_targets(std::vector<int32_t>{target}, 3), 0.5).loss);
  }
  tape.backward(roots);
  auto gradient = z.slot()->value().to_doubles();
  CHECK(gradient[1] == Approx(std::exp(2.0 - lse)).epsilon(1e-12));
  CHECK(gradient[0] == Approx(std::exp(1.0 - lse) - 0.5).epsilon(1e-12));
}

TEST_CASE("Wrong targets and another root than the loss are told") {
  Tensor x = random_normal({2, 4}, 1).to(DType::f32), w = random_normal({5, 4}, 2).to(DType::f32);
  auto targets = [](int32_t a, int32_t b) { return Tensor::from(std::vector{a, b}, {2}); };
  CHECK_THROWS_WITH(linear_cross_entropy(x, w, targets_for(w, targets(1, 5)), 1.0),
                    Catch::Matchers::Contains("target 5 of row 1"));
  CHECK_THROWS_AS(linear_cross_entropy(x, w, targets_for(w, targets(-2, 0)), 1.0), Error);
  // Those of another batch.
  for (int64_t n : {1, 3})
    CHECK_THROWS_WITH(
        linear_cross_entropy(x, w, targets_for(w, Tensor::zeros({n}, DType::i32)), 1.0),
        Catch::Matchers::Contains("targets for 2 rows"));
  x.set_slot(std::make_shared<GradSlot>());
  Tape tape;
  Recording on(tape);
  Tensor loss = linear_cross_entropy(x, w, targets_for(w, targets(0, 1)), 1.0).loss;
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
  linear_cross_entropy(x, w, targets_for(w, targets), 1.0);
  const int64_t used = allocator_stats().peak_bytes_in_use - before;
  CHECK(used < 120'000'000);
  // What is told of them beforehand is what they take, up to the allocator's rounding.
  const int64_t told = logits_bytes(n, vocabulary, DType::f32);
  CHECK(told <= used);
  CHECK(static_cast<double>(told) > 0.85 * static_cast<double>(used));
}

TEST_CASE("The gradients that forward computes ahead count for backward") {
  // Wide enough for products to take most of the time, also where sanitizers slow the softmax.
  Tensor x = random_normal({256, 512}, 1).to(DType::f32);
  Tensor w = random_normal({4096, 512}, 2).to(DType::f32);
  w.set_slot(std::make_shared<GradSlot>(Tensor::empty(w.shape(), DType::f32)));
  x.set_slot(std::make_shared<GradSlot>());
  Tensor targets = Tensor::zeros({256}, DType::i32);
  auto seconds = [&](bool gradients) {
    Tape tape;
    Recording on(tape);
    std::optional<NoRecording> off;
    if (!gradients) off.emplace();
    PhaseTimer::current().start();
    PhaseScope scope(Phase::forward);
    linear_cross_entropy(x, w, targets_for(w, targets), 1.0);
    return PhaseTimer::current().take();
  };
  seconds(true);  // warms up
  auto with = seconds(true), without = seconds(false);
  auto of = [](const auto& phases, Phase p) { return phases[static_cast<size_t>(p)]; };
  CHECK(of(without, Phase::backward) == 0);
  CHECK(of(without, Phase::forward) > 0);
  // Two of the three products, the other with the softmax.
  CHECK(of(with, Phase::backward) > 0.2 * of(with, Phase::forward));
  CHECK(of(with, Phase::forward) > 0);
}
