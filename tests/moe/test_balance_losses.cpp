// The balance losses and their gradients against the equations of moe/balance_loss.h, written
// plainly, for every loss, scope and a layout of uneven ranks.
#include <cmath>

#include "tests/moe/moe_run.h"
#include "tests/support/catch.h"
#include "tests/support/gradient_check.h"
#include "tests/support/packed_sums.h"

namespace adagate::test {
namespace {

constexpr int64_t kTokens = 23, kWidth = 12, kExperts = 8;
constexpr double kThreshold = 0.1;

// What the losses are a function of, all f64.
struct GateInputs {
  Tensor x;       // [kTokens, kWidth]
  Tensor weight;  // [kWidth, kExperts]
  Tensor mask;
};

struct Scores {
  std::vector<double> probability;
  double log_sum_exp = 0;
};

Scores scores_of(const GateInputs& in, int64_t token) {
  Scores s;
  double sum = 0;
  for (int64_t e = 0; e < kExperts; ++e) {
    double logit = 0;
    for (int64_t d = 0; d < kWidth; ++d)
      logit += in.x.data<double>()[token * kWidth + d] * in.weight.data<double>()[d * kExperts + e];
    s.probability.push_back(std::exp(logit));
    sum += s.probability.back();
  }
  for (double& p : s.probability) p /= sum;
  s.log_sum_exp = std::log(sum);
  return s;
}

// Both losses over the real tokens in [begin, end): c E sum_e f_e p_e + c_z mean(lse^2).
double plain_losses(const GateInputs& in, const BalanceConfig& config, int64_t begin, int64_t end) {
  std::vector<double> chosen(kExperts), mean(kExperts);
  double tokens = 0, choices = 0, z = 0;
  for (int64_t t = begin; t < end; ++t) {
    if (!in.mask.data<uint8_t>()[t]) continue;
    Scores s = scores_of(in, t);
    auto& p = s.probability;
    auto first = std::max_element(p.begin(), p.end()) - p.begin();
    std::ptrdiff_t second = first == 0 ? 1 : 0;
    for (std::ptrdiff_t e = 0; e < kExperts; ++e)
      if (e != first && p[static_cast<size_t>(e)] > p[static_cast<size_t>(second)]) second = e;
    double gap = p[static_cast<size_t>(first)] - p[static_cast<size_t>(second)];
    std::vector<std::ptrdiff_t> experts = {first};
    if (gap <= kThreshold) experts.push_back(second);
    bool counts = config.loss == "switch" || (config.loss == "paper" && experts.size() == 1);
    for (std::ptrdiff_t e : experts)
      if (counts) chosen[static_cast<size_t>(e)] += 1, choices += 1;
    for (size_t e = 0; e < kExperts; ++e) mean[e] += p[e];
    z += s.log_sum_exp * s.log_sum_exp;
    tokens += 1;
  }
  if (tokens == 0) return 0;
  double balance = 0;
  for (size_t e = 0; e < kExperts; ++e)
    if (choices > 0) balance += chosen[e] / choices * mean[e] / tokens;
  return config.coefficient * kExperts * balance + config.z_coefficient * z / tokens;
}

// The mean over the scopes of a layout.
double plain_losses(const GateInputs& in, const BalanceConfig& config, const Layout& layout) {
  if (config.scope == "global_batch") return plain_losses(in, config, 0, kTokens);
  std::vector<int64_t> pieces = piece_sizes(layout, kTokens);
  double sum = 0;
  int64_t begin = 0;
  for (int m = 0; m < layout.micro_batches; ++m) {
    int64_t end = begin;
    for (int r = 0; r < layout.ranks; ++r) end += pieces[static_cast<size_t>(m * layout.ranks + r)];
    sum += plain_losses(in, config, begin, end);
    begin = end;
  }
  return sum / layout.micro_batches;
}

// d loss / d values by central differences, element by element.
template <class Loss>
void expect_gradient(const Tensor& gradient, const Tensor& values, Loss&& loss) {
  constexpr double kStep = 1e-5;
  Tensor numeric = Tensor::zeros(values.shape(), DType::f64);
  for (int64_t i = 0; i < values.numel(); ++i) {
    double& value = values.data<double>()[i];
    double before = value;
    value = before + kStep;
    double above = loss();
    value = before - kStep;
    numeric.data<double>()[i] = (above - loss()) / (2 * kStep);
    value = before;
  }
  double largest = 0;
  for (int64_t i = 0; i < values.numel(); ++i)
    largest = std::max(largest, std::abs(gradient.data<double>()[i] - numeric.data<double>()[i]));
  CHECK(largest <= 1e-8);
}

}  // namespace

TEST_CASE("The balance losses and their gradients are those of their equations", "[moe]") {
  GateInputs in{random_normal({kTokens, kWidth}, 41), random_normal({kWidth, kExperts}, 5, 0.3),
                padded_mask(kTokens)};
  // Nothing but the losses reaches the gate.
  GlobalBatch batch{in.x, Tensor::zeros({kTokens, kWidth}, DType::f64), in.mask};
  auto set_gate = [&](const std::string& name, Parameter& p) {
    if (name == "gate.weight") p.master().copy_from(in.weight);
  };
  Layout whole, uneven{2, 2, 3, false, DType::f64, {4, 1, 0, 7, 6, 5}};
  for (const BalanceLoss& entry : kBalanceLosses)
    for (double z : {0.0, 0.05})
      for (std::string scope : {"global_batch", "micro_batch"})
        for (const Layout& layout : {whole, uneven}) {
          std::string loss(entry.name);
          INFO(loss << ", z " << z << ", " << scope << ", ranks " << layout.ranks);
          MoeLayerConfig config = small_layer("adaptive", loss);
          config.moe.gate.threshold = kThreshold;
          config.moe.balance.z_coefficient = z;
          config.moe.balance.scope = scope;
          LayerRun run = run_layer(config, batch, layout, set_gate);
          auto plain = [&] { return plain_losses(in, config.moe.balance, layout); };
          CHECK(run.auxiliary == Approx(plain()).epsilon(1e-12));
          CHECK((run.auxiliary > 0) == (loss != "none" || z > 0));
          expect_gradient(run.grads.at("gate.weight"), in.weight, plain);
          expect_gradient(run.dx, in.x, plain);
        }
}

TEST_CASE("Each layer has the gradient of its own sums, over all ranks", "[moe]") {
  constexpr int64_t kLayers = 2, kFew = 3;
  run_ranks(2, [&](std::shared_ptr<Communicator> world) {
    double more = world->rank();
    RoutingStep step(kLayers, kFew, {.loss = "switch", .coefficient = 0.5, .z_coefficient = 0.25});
    for (int64_t l = 0; l < kLayers; ++l) {
      RoutingSums sums{.single = {},
                       .assigned = {1 + more, 2.0 * static_cast<double>(l), 0},
                       .probability = {},
                       .by_count = {},
                       .tokens = 4 + more};
      step.ledger().add(l, packed_sums(sums, kFew));
      step.ledger().add(l, {.rows = {}});
    }
    step.end_forward(*world);
    // c E / T = 1 / 6 of shares 3 / 3 and then 3 / 7, 4 / 7; c_z / T.
    CHECK_THAT(step.loss_gradient(0)().to_doubles(),
               Catch::Matchers::Approx(std::vector<double>{1.0 / 6, 0, 0, 0.25 / 9}));
    CHECK_THAT(step.loss_gradient(1)().to_doubles(),
               Catch::Matchers::Approx(std::vector<double>{1.0 / 14, 2.0 / 21, 0, 0.25 / 9}));
  });
}

TEST_CASE("Without a loss nothing is counted beforehand", "[moe]") {
  auto counts_beforehand = [](const BalanceConfig& balance) {
    RoutingStep step(2, 4, balance);
    step.begin(3);
    CHECK(step.losses_active() == step.needs_counting_pass());
    return step.needs_counting_pass();
  };
  CHECK(counts_beforehand({.loss = "paper", .coefficient = 0.1}));
  CHECK(counts_beforehand({.loss = "switch", .coefficient = 0.1}));
  CHECK(counts_beforehand({.loss = "none", .coefficient = 0.1, .z_coefficient = 0.1}));
  CHECK(counts_beforehand({.loss = "paper", .coefficient = 0, .z_coefficient = 0.1}));
  CHECK(!counts_beforehand({.loss = "none", .coefficient = 0.1}));
  CHECK(!counts_beforehand({.loss = "paper", .coefficient = 0}));
}

TEST_CASE("Backward before the counts are reduced is refused, at every step", "[moe]") {
  RoutingStep step(1, 4, {.loss = "paper"});
  for (int repeat = 0; repeat < 2; ++repeat) {
    step.begin(1);
    CHECK_THROWS_WITH(step.loss_gradient(0)(), Catch::Contains("reduce()"));
    step.end_forward(*make_self_communicator());
    CHECK_NOTHROW(step.loss_gradient(0)());
  }
  // Each micro-batch for itself: the counts of the one before don't do.
  RoutingStep alone(1, 4, {.loss = "paper", .scope = "micro_batch"});
  alone.begin(2);
  for (int64_t i : {0, 1}) {
    alone.begin_micro_batch(i);
    CHECK_THROWS_WITH(alone.loss_gradient(0)(), Catch::Contains("reduce()"));
    alone.end_forward(*make_self_communicator());
    CHECK_NOTHROW(alone.loss_gradient(0)());
  }
}

}  // namespace adagate::test
