// Sampling and the continuation of a text, against what their definitions say.
#include <algorithm>
#include <cmath>
#include <set>

#include "core/nn/parameter_store.h"
#include "models/decoder.h"
#include "models/generation.h"
#include "tests/support/catch.h"

using namespace adagate;

namespace {

// Shares of the tokens drawn at many positions.
std::vector<double> shares(const std::vector<float>& logits, const SamplingOptions& options) {
  constexpr int kDraws = 20000;
  std::vector<double> share(logits.size());
  for (uint64_t position = 0; position < kDraws; ++position)
    share[static_cast<size_t>(sample_token(logits, options, position))] += 1.0 / kDraws;
  return share;
}

// softmax(logits / temperature) over the tokens `kept`, zero elsewhere.
std::vector<double> softmax(const std::vector<float>& logits, double temperature,
                            const std::vector<size_t>& kept) {
  std::vector<double> p(logits.size());
  double sum = 0;
  for (size_t i : kept) sum += p[i] = std::exp(logits[i] / temperature);
  for (double& x : p) x /= sum;
  return p;
}

void expect_shares(const SamplingOptions& options, const std::vector<double>& expected) {
  const std::vector<float> logits = {0.5f, 2.0f, -1.0f, 1.5f, 0.5f};
  std::vector<double> found = shares(logits, options);
  for (size_t i = 0; i < expected.size(); ++i) {
    INFO("token " << i);
    if (expected[i] == 0) CHECK(found[i] == 0);
    CHECK(found[i] == Approx(expected[i]).margin(0.012));
  }
}

ModelConfig tiny_config(int64_t context, bool modern) {
  ModelConfig m;
  if (modern) {
    m.preset = "modern";
    m.apply_preset();
    m.kv_heads = 1;
    m.feed_forward = 12;
  }
  m.layers = 2;
  m.width = 8;
  m.heads = 2;
  m.context = context;
  m.vocabulary = 23;
  m.initializer_range = 0.3;
  return m;
}

MoeConfig tiny_experts(bool modern) {
  MoeConfig moe;
  moe.experts = 4;
  moe.gate.policy = "adaptive";
  moe.gate.threshold = 0.1;
  moe.gate.normalize = modern ? "pair" : "all";
  moe.gate.combine = modern ? "renormalized" : "raw";
  return moe;
}

struct TinyModel {
  Decoder model;
  ParameterStore store;

  explicit TinyModel(int64_t context, bool modern = false)
      : model(tiny_config(context, modern), tiny_experts(modern), make_self_mesh()),
        store(model, {.master = DType::f64, .compute = DType::f64, .allocate_grad = {}}) {
    store.initialize(5);
  }

  // The most probable token after `text`, computed without a cache.
  int32_t next(std::span<const int32_t> text) {
    NoRecording off;
    auto n = static_cast<int64_t>(text.size());
    Tensor hidden = model.forward(Tensor::from(text, {n}), StepContext{}, padded_rows(1, n));
    std::vector<double> logits = model.logits(hidden.slice(n - 1, n)).to_doubles();
    return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  }
};

}  // namespace

TEST_CASE("sampling: the shares are those of the softmax") {
  const std::vector<float> logits = {0.5f, 2.0f, -1.0f, 1.5f, 0.5f};
  const std::vector<size_t> all = {0, 1, 2, 3, 4};
  expect_shares({.temperature = 1.0, .top_k = 0, .top_p = 1.0}, softmax(logits, 1.0, all));
  expect_shares({.temperature = 2.5, .top_k = 0, .top_p = 1.0}, softmax(logits, 2.5, all));
  expect_shares({.temperature = 0.5, .top_k = 0, .top_p = 1.0}, softmax(logits, 0.5, all));
  // Of equal ones top-k takes the lower index.
  expect_shares({.temperature = 1.0, .top_k = 3, .top_p = 1.0}, softmax(logits, 1.0, {0, 1, 3}));
  // Probabilities 0.465, 0.282, 0.104, 0.104, 0.023 (with 1.0): the smallest set that reaches
  // top_p.
  expect_shares({.temperature = 1.0, .top_k = 0, .top_p = 0.4}, softmax(logits, 1.0, {1}));
  expect_shares({.temperature = 1.0, .top_k = 0, .top_p = 0.7}, softmax(logits, 1.0, {1, 3}));
  expect_shares({.temperature = 1.0, .top_k = 0, .top_p = 0.8}, softmax(logits, 1.0, {0, 1, 3}));
}

TEST_CASE("sampling: temperature 0 takes the most probable token, the seed decides else") {
  CHECK(sample_token({1.0f, 3.0f, 3.0f, 2.0f}, {.temperature = 0}, 0) == 1);
  std::vector<float> flat(1000, 0.0f);
  SamplingOptions options{.temperature = 1.0, .top_k = 0, .top_p = 1.0, .seed = 4}, other = options;
  other.seed = 5;
  CHECK(sample_token(flat, options, 7) == sample_token(flat, options, 7));
  CHECK(sample_token(flat, options, 7) != sample_token(flat, options, 8));
  CHECK(sample_token(flat, options, 7) != sample_token(flat, other, 7));
  CHECK_THROWS_WITH(sample_token({NAN, NAN}, {.temperature = 0}, 0), Catch::Contains("not finite"));
}

TEST_CASE("sampling: ids without a token are drawn by no sampler") {
  const std::vector<float> logits = {0.5f, 9.0f, -1.0f, 1.5f, 0.5f, 8.0f};
  const std::vector<int32_t> never = {1, 5};
  CHECK(sample_token(logits, {.temperature = 0, .never = never}, 0) == 3);
  for (auto [top_k, top_p] : {std::pair{0, 1.0}, {5, 1.0}, {2, 1.0}, {0, 0.9}, {0, 1e-3}}) {
    for (double temperature : {0.01, 1.0, 100.0}) {
      SamplingOptions options{.temperature = temperature, .top_k = top_k, .top_p = top_p};
      options.never = never;
      for (uint64_t position = 0; position < 500; ++position) {
        int32_t token = sample_token(logits, options, position);
        CHECK((token != 1 && token != 5));
      }
    }
  }
  SamplingOptions options{.temperature = 1.0, .top_p = 1.0, .never = never};
  std::vector<double> expected = softmax(logits, 1.0, {0, 2, 3, 4}),
                      found = shares(logits, options);
  for (size_t i = 0; i < expected.size(); ++i) CHECK(found[i] == Approx(expected[i]).margin(0.012));
  options.never = {0, 1, 2, 3, 4, 5};
  CHECK_THROWS_WITH(sample_token(logits, options, 0), Catch::Contains("not finite"));
}

TEST_CASE("generation: the tokens that a model without a cache would choose, past its context") {
  for (bool modern : {false, true})
    for (int64_t context : {1, 3, 8})
      for (size_t prompt_length : {1u, 5u, 8u, 13u}) {
        INFO("modern " << modern << ", context " << context << ", prompt of " << prompt_length);
        TinyModel tiny(context, modern);
        std::vector<int32_t> text;
        for (size_t i = 0; i < prompt_length; ++i) text.push_back(static_cast<int32_t>(i * 7 % 23));
        std::vector<int32_t> fresh =
            generate(tiny.model, text, {.tokens = 30, .temperature = 0, .stop_token = -1}, {});
        REQUIRE(fresh.size() == 30);
        // The text since the model last started anew: once the context is full, from its last
        // half, a token at least.
        auto most = static_cast<size_t>(context), half = std::max<size_t>(1, most / 2);
        size_t begin = text.size() > most ? text.size() - most : 0;
        for (size_t i = 0; i < fresh.size(); ++i) {
          if (text.size() - begin > most) begin = text.size() - half;
          INFO("token " << i);
          REQUIRE(fresh[i] == tiny.next(std::span(text).subspan(begin)));
          text.push_back(fresh[i]);
        }
      }
}

TEST_CASE("generation: ends at the stop token, tells each token, draws by position") {
  TinyModel tiny(8);
  SamplingOptions options{
      .tokens = 200, .temperature = 1.0, .top_k = 0, .top_p = 1.0, .seed = 3, .stop_token = -1};
  std::vector<int32_t> told,
      all = generate(tiny.model, {1, 2}, options, [&](int32_t token) { told.push_back(token); });
  CHECK(told == all);
  REQUIRE(all.size() == 200);
  // All tokens nearly equally probable: were the draw the same at every position, so were they.
  SamplingOptions flat = options;
  flat.temperature = 1000;
  std::vector<int32_t> any = generate(tiny.model, {1, 2}, flat, {});
  CHECK(std::set<int32_t>(any.begin(), any.end()).size() > 15);
  options.stop_token = all[40];
  auto end = std::find(all.begin(), all.end(), all[40]);
  CHECK(generate(tiny.model, {1, 2}, options, {}) == std::vector<int32_t>(all.begin(), end));
  CHECK_THROWS_WITH(generate(tiny.model, {}, options, {}), Catch::Contains("prompt is empty"));
}
