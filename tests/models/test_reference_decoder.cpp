// The decoder against Transformers' GPT-2 and Llama, and MoE decoders against plain PyTorch
// (tests/reference/generate_*.py): logits, loss, every gradient, training steps, generation.
#include <string>

#include "tests/models/reference_run.h"
#include "tests/support/catch.h"

namespace adagate::test {
namespace {

struct TrainingBounds {
  double loss, norm;        // the latter relative, of gradients and final parameters
  double single_share = 0;  // share of single-expert tokens, absolute
};

// What is asked of fp32 is 1e-4 (logits), 1e-5 (loss), 1e-3 (gradients); round-off explains less.
struct Bounds {
  double logits, loss, gradient;
};
constexpr Bounds kF32{2e-5, 1e-6, 2e-5};
// The fixtures' logits and gradients are f64 results stored in f32, and Llama computes its norms,
// softmax and rotary angles in f32 whatever the type.
constexpr Bounds kF64{1e-5, 1e-6, 1e-5};

TokenBatch batch_of(const ReferenceFixture& fixture) {
  return {fixture.tensor("inputs/tokens"), fixture.tensor("inputs/targets"),
          fixture.contains("inputs/lengths") ? fixture.tensor("inputs/lengths") : Tensor()};
}

// Largest difference where a sample has tokens.
double logits_error(const Tensor& logits, const ReferenceFixture& fixture) {
  Tensor expected = fixture.tensor("logits");  // [rows, length, vocabulary]
  TokenBatch batch = batch_of(fixture);
  int64_t rows = expected.dim(0), length = expected.dim(1), vocabulary = expected.dim(2);
  Tensor mine = logits.reshape({rows * length, vocabulary});
  Tensor theirs = expected.reshape({rows * length, vocabulary});
  double largest = 0;
  for (int64_t row = 0; row < rows; ++row) {
    int64_t real = batch.lengths ? batch.lengths.data<int32_t>()[row] : length;
    int64_t first = row * length;
    largest = std::max(largest, largest_difference(mine.slice(first, first + real),
                                                   theirs.slice(first, first + real)));
  }
  return largest;
}

void expect_batch(const std::string& name, const ReferenceFixture& weights, RunOptions options,
                  const Bounds& bounds) {
  INFO(name << ", " << name_of(options.type) << ", micro-batches of " << options.micro_batch
            << (options.recompute ? ", recomputed" : ""));
  ReferenceFixture fixture(name);
  ReferenceRun run(fixture, weights, options);
  TokenBatch batch = batch_of(fixture);
  CHECK(logits_error(run.logits(batch), fixture) <= bounds.logits);
  double loss = run.forward_and_backward(batch);
  const auto& json = fixture.json();
  CHECK(std::abs(loss - json.at("loss").get<double>()) <= bounds.loss);
  if (json.contains("total"))
    CHECK(std::abs(loss + run.routing().auxiliary_loss() - json.at("total").get<double>()) <=
          bounds.loss);
  REQUIRE(run.store().parameters().size() == json.at("grad_norms").size());
  for (const Parameter* p : run.store().parameters()) {
    INFO(p->name());
    CHECK(norm_error(p->grad(), fixture.tensor("grads/" + p->name())) <= bounds.gradient);
  }
}

// Batch `step` of the training run, all its micro-batches as rows.
TokenBatch training_batch(const ReferenceFixture& fixture, int64_t step) {
  auto part = [&](const std::string& name) {
    Tensor all = fixture.tensor(name);  // [steps, accumulation, rows, length]
    return all.slice(step, step + 1).reshape({all.dim(1) * all.dim(2), all.dim(3)});
  };
  return {part("train/tokens"), part("train/targets"), {}};
}

void expect_training(const std::string& name, RunOptions options, const TrainingBounds& bounds) {
  INFO(name << ", " << name_of(options.type) << ", micro-batches of " << options.micro_batch
            << (options.recompute ? ", recomputed" : ""));
  ReferenceFixture fixture(name);
  ReferenceRun run(fixture, fixture, options);
  OptimizerConfig config;
  JsonConfigReader reader(fixture.json().at("config").at("train").at("optimizer"), "optimizer");
  OptimizerConfig::visit(reader, config);
  reader.finish();
  AdamW optimizer(run.store(), config);
  const auto& expected = fixture.json().at("train");
  auto steps = static_cast<int64_t>(expected.at("losses").size());
  REQUIRE(steps >= 10);
  for (int64_t step = 0; step < steps; ++step) {
    INFO("step " << step);
    auto at = static_cast<size_t>(step);
    double loss = run.forward_and_backward(training_batch(fixture, step));
    CHECK(std::abs(loss - expected.at("losses")[at].get<double>()) <= bounds.loss);
    double norm = run.gradient_norm();
    CHECK(norm == Approx(expected.at("grad_norms")[at].get<double>()).epsilon(bounds.norm));
    if (expected.contains("single_expert_share")) {
      double single = 0;
      for (int64_t i = 0; i < run.routing().layers(); ++i)
        single += run.routing().layer(i).share_with(1);
      single /= static_cast<double>(run.routing().layers());
      CHECK(single == Approx(expected.at("single_expert_share")[at].get<double>())
                          .margin(bounds.single_share + 1e-12));
    }
    optimizer.step(expected.at("learning_rates")[at].get<double>(),
                   std::min(1.0, config.clip_norm / (norm + 1e-6)));
  }
  for (const Parameter* p : run.store().parameters()) {
    INFO(p->name());
    double norm = norm_error(p->master(), Tensor::zeros(p->spec().shape, DType::f64));
    CHECK(norm ==
          Approx(expected.at("final_norms").at(p->name()).get<double>()).epsilon(bounds.norm));
  }
}

}  // namespace

TEST_CASE("decoders agree with Transformers and PyTorch", "[models][reference]") {
  REQUIRE(!decoder_fixtures().empty());
  for (const std::string& name : decoder_fixtures()) {
    ReferenceFixture weights(name);
    for (const std::string& batch : {name, name + "_padded"}) {
      expect_batch(batch, weights, {.type = DType::f64}, kF64);
      expect_batch(batch, weights, {.type = DType::f32}, kF32);
      expect_batch(batch, weights, {.type = DType::f32, .micro_batch = 2, .recompute = true}, kF32);
    }
  }
}

TEST_CASE("AdamW steps give PyTorch's losses", "[models][reference]") {
  for (const std::string& name : decoder_fixtures()) {
    expect_training(name, {.type = DType::f64}, {1e-6, 1e-6});
    expect_training(name, {.type = DType::f32}, {1e-5, 1e-4});
    // Micro-batches of another size than PyTorch's: the loss is a mean over all tokens of the step.
    expect_training(name, {.type = DType::f32, .micro_batch = 2, .recompute = true}, {1e-5, 1e-4});
  }
}

TEST_CASE("bf16 training stays near PyTorch's fp32", "[models][reference]") {
  for (const std::string& name : decoder_fixtures()) {
    ReferenceFixture fixture(name);
    ReferenceRun run(fixture, fixture, {.type = DType::bf16});
    INFO(name);
    TokenBatch batch = batch_of(fixture);
    // Twice the error of PyTorch's own bf16 autocast.
    if (fixture.json().contains("bf16_autocast_max_logit_error"))
      CHECK(logits_error(run.logits(batch), fixture) <=
            2 * fixture.json().at("bf16_autocast_max_logit_error").get<double>());
    double loss = run.forward_and_backward(batch);
    CHECK(std::abs(loss - fixture.json().at("loss").get<double>()) <= 0.01);
    // A routing decision that bf16 flips changes gradients as a whole.
    if (run.decoder().moe_layers() == 0)
      for (const Parameter* p : run.store().parameters()) {
        INFO(p->name());
        CHECK(norm_error(p->grad(), fixture.tensor("grads/" + p->name())) <= 0.1);
      }
    expect_training(name, {.type = DType::bf16}, {0.02, 0.05, 0.05});
  }
}

TEST_CASE("token by token the decoder gives the same logits", "[models][reference]") {
  for (const std::string& name : decoder_fixtures()) {
    INFO(name);
    ReferenceFixture fixture(name);
    ReferenceRun run(fixture, fixture, {});
    Tensor tokens = fixture.tensor("inputs/tokens"), logits = fixture.tensor("logits");
    int64_t length = tokens.dim(1), vocabulary = logits.dim(2);
    Tensor expected = logits.reshape({tokens.numel(), vocabulary});
    auto caches = run.decoder().make_caches();
    constexpr int64_t kPrompt = 5;  // fed at once, the others one by one
    for (int64_t end = kPrompt; end <= length; ++end) {
      int64_t begin = end == kPrompt ? 0 : end - 1;
      Tensor fed = tokens.reshape({tokens.numel()}).slice(begin, end);
      CHECK(largest_difference(run.decoder().step(fed, caches), expected.slice(end - 1, end)) <=
            kF32.logits);
    }
  }
}

}  // namespace adagate::test
