// What parameters a decoder has, and the numbers they start with.
#include <cmath>
#include <string>

#include "core/nn/parameter_store.h"
#include "models/decoder.h"
#include "tests/support/catch.h"

namespace adagate::test {
namespace {

struct Expected {
  std::string name;
  Shape shape;
  double stddev = 0;  // of matrices; norms and biases start constant
};

constexpr double kRange = 0.05;  // model.initializer_range

ModelConfig model_of(const std::string& preset, int64_t layers) {
  ModelConfig m;
  m.preset = preset;
  m.apply_preset();
  m.layers = layers;
  m.width = 64;
  m.heads = 4;
  m.context = 24;
  m.vocabulary = 80;
  m.initializer_range = kRange;
  return m;
}

MoeConfig experts_in_every_second_block() {
  MoeConfig moe;
  moe.experts = 4;
  moe.every = 2;
  return moe;
}

// Of a block of GPT-2's form with an inner width of 256, its experts' being 40.
std::vector<Expected> gpt2_block(const std::string& block, double residual, bool moe) {
  std::vector<Expected> all = {{block + "attention_norm.gamma", {64}},
                               {block + "attention_norm.beta", {64}},
                               {block + "attention.qkv.weight", {64, 192}, kRange},
                               {block + "attention.qkv.bias", {192}},
                               {block + "attention.output.weight", {64, 64}, residual},
                               {block + "attention.output.bias", {64}},
                               {block + "feed_forward_norm.gamma", {64}},
                               {block + "feed_forward_norm.beta", {64}}};
  std::vector<Expected> dense = {{block + "feed_forward.up.weight", {64, 256}, kRange},
                                 {block + "feed_forward.up.bias", {256}},
                                 {block + "feed_forward.down.weight", {256, 64}, residual},
                                 {block + "feed_forward.down.bias", {64}}};
  std::vector<Expected> experts = {{block + "moe.gate.weight", {64, 4}, kRange},
                                   {block + "moe.experts.up.weight", {4, 64, 40}, kRange},
                                   {block + "moe.experts.up.bias", {4, 40}},
                                   {block + "moe.experts.down.weight", {4, 40, 64}, residual},
                                   {block + "moe.experts.down.bias", {4, 64}}};
  const std::vector<Expected>& slot = moe ? experts : dense;
  all.insert(all.end(), slot.begin(), slot.end());
  return all;
}

// The modern form has no biases and two heads' keys and values; SwiGLU's inner width is 192, that
// is 8/3 * 64 in whole 64s, twice.
std::vector<Expected> modern_block(const std::string& block, double residual, bool moe) {
  std::vector<Expected> all = {{block + "attention_norm.gamma", {64}},
                               {block + "attention.qkv.weight", {64, 128}, kRange},
                               {block + "attention.output.weight", {64, 64}, residual},
                               {block + "feed_forward_norm.gamma", {64}}};
  std::vector<Expected> dense = {{block + "feed_forward.up.weight", {64, 384}, kRange},
                                 {block + "feed_forward.down.weight", {192, 64}, residual}};
  std::vector<Expected> experts = {{block + "moe.gate.weight", {64, 4}, kRange},
                                   {block + "moe.experts.up.weight", {4, 64, 384}, kRange},
                                   {block + "moe.experts.down.weight", {4, 192, 64}, residual}};
  const std::vector<Expected>& slot = moe ? experts : dense;
  all.insert(all.end(), slot.begin(), slot.end());
  return all;
}

struct Form {
  ModelConfig model;
  MoeConfig moe;
  std::vector<Expected> parameters;
};

Form gpt2_form() {
  Form form{model_of("gpt2", 3), experts_in_every_second_block(), {}};
  form.moe.expert_feed_forward = 40;
  double residual = kRange / std::sqrt(6.0);
  form.parameters = {{"embedding.tokens", {80, 64}, kRange},
                     {"embedding.positions", {24, 64}, kRange}};
  for (int i = 0; i < 3; ++i)
    for (auto& p : gpt2_block(fmt::format("blocks.{}.", i), residual, i == 1))
      form.parameters.push_back(p);
  form.parameters.push_back({"final_norm.gamma", {64}});
  form.parameters.push_back({"final_norm.beta", {64}});
  return form;
}

Form modern_form() {
  Form form{model_of("modern", 2), experts_in_every_second_block(), {}};
  form.model.kv_heads = 2;
  form.parameters = {{"embedding.tokens", {80, 64}, kRange}};
  for (int i = 0; i < 2; ++i)
    for (auto& p : modern_block(fmt::format("blocks.{}.", i), kRange / 2, i == 1))
      form.parameters.push_back(p);
  form.parameters.push_back({"final_norm.gamma", {64}});
  form.parameters.push_back({"head.weight", {80, 64}, kRange});
  return form;
}

// The initial values of a form's parameters.
class Initialized {
 public:
  explicit Initialized(const Form& form, uint64_t seed = 1)
      : decoder_(form.model, form.moe, make_self_mesh()), store_(decoder_, {}) {
    store_.initialize(seed);
  }
  const ParameterStore& store() const { return store_; }

 private:
  Decoder decoder_;
  ParameterStore store_;
};

// The draws behind a matrix's values.
std::vector<double> standardized(const Tensor& values, double stddev) {
  std::vector<double> x = values.to_doubles();
  for (double& v : x) v /= stddev;
  return x;
}

// Of the values both have, which are standard normal.
double correlation(const std::vector<double>& a, const std::vector<double>& b) {
  size_t n = std::min(a.size(), b.size());
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum / static_cast<double>(n);
}

}  // namespace

TEST_CASE("decoder: names and shapes of all parameters, and which of them decay", "[models]") {
  for (const Form& form : {gpt2_form(), modern_form()}) {
    INFO(form.model.preset);
    Initialized model(form);
    const auto& parameters = model.store().parameters();
    REQUIRE(parameters.size() == form.parameters.size());
    for (size_t i = 0; i < parameters.size(); ++i) {
      const Expected& expected = form.parameters[i];
      INFO(expected.name << ", found " << parameters[i]->spec().shape.str());
      CHECK(parameters[i]->name() == expected.name);
      CHECK(parameters[i]->spec().shape == expected.shape);
      CHECK(parameters[i]->spec().decay == (expected.stddev > 0));
    }
  }
}

TEST_CASE("decoder: every parameter starts with the spread of its role", "[models]") {
  for (const Form& form : {gpt2_form(), modern_form()}) {
    Initialized model(form);
    for (const Expected& expected : form.parameters) {
      INFO(form.model.preset << ": " << expected.name);
      std::vector<double> values = model.store().find(expected.name)->master().to_doubles();
      auto n = static_cast<double>(values.size());
      if (expected.stddev == 0) {
        double constant = expected.name.ends_with("gamma") ? 1 : 0;
        CHECK(values == std::vector<double>(values.size(), constant));
        continue;
      }
      double sum = 0, squares = 0;
      for (double v : values) sum += v, squares += v * v;
      // Within five standard deviations of what n draws give.
      CHECK(std::abs(sum / n) <= 5 * expected.stddev / std::sqrt(n));
      CHECK(std::sqrt(squares / n) == Approx(expected.stddev).epsilon(5 / std::sqrt(2 * n)));
    }
  }
}

TEST_CASE("decoder: every parameter, expert and seed draws its own numbers", "[models]") {
  Form form = gpt2_form();
  Initialized model(form), other(form, /*seed=*/2);
  std::vector<std::pair<std::string, std::vector<double>>> draws;
  for (const Expected& expected : form.parameters) {
    if (expected.stddev == 0) continue;
    const Tensor& values = model.store().find(expected.name)->master();
    for (int64_t e = 0; e < (values.shape().rank() == 3 ? 4 : 1); ++e) {
      Tensor mine = values.shape().rank() == 3 ? values.slice(e, e + 1) : values;
      draws.emplace_back(fmt::format("{}, expert {}", expected.name, e),
                         standardized(mine, expected.stddev));
    }
    const Tensor& again = other.store().find(expected.name)->master();
    draws.emplace_back(expected.name + ", another seed", standardized(again, expected.stddev));
  }
  for (size_t i = 0; i < draws.size(); ++i)
    for (size_t j = 0; j < i; ++j) {
      INFO(draws[i].first << " and " << draws[j].first);
      auto n = static_cast<double>(std::min(draws[i].second.size(), draws[j].second.size()));
      CHECK(std::abs(correlation(draws[i].second, draws[j].second)) <= 5 / std::sqrt(n));
    }
}

}  // namespace adagate::test
