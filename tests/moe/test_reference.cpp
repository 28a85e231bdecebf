// The MoE layer against PyTorch, from the fixtures of tests/reference/generate_moe.py.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/io/safetensors.h"
#include "tests/moe/moe_run.h"
#include "tests/support/gradient_check.h"
#include "tests/support/reference_fixture.h"

namespace adagate::test {
namespace {

struct Fixture {
  std::string name;
  nlohmann::json json;
  SafetensorsFile file;
  explicit Fixture(const std::filesystem::path& path)
      : name(path.stem()), file(std::filesystem::path(path).replace_extension(".safetensors")) {
    std::ifstream(path) >> json;
  }
  Tensor read(const std::string& key) const { return file.read(key).to(DType::f64); }
};

std::vector<std::filesystem::path> fixtures() {
  std::vector<std::filesystem::path> paths;
  for (const std::string& name : fixture_names("moe"))
    paths.push_back(fixtures_folder() / (name + ".json"));
  return paths;
}

MoeLayerConfig config_of(const nlohmann::json& json) {
  const auto& model = json["config"]["model"];
  const auto& moe = json["config"]["moe"];
  MoeLayerConfig config{.width = model["width"],
                        .hidden = model["feed_forward"],
                        .activation = activation_of(model["activation"].get<std::string>()),
                        .bias = model["bias"]};
  config.moe.experts = moe["experts"];
  GateConfig& gate = config.moe.gate;
  gate.policy = moe["gate"].value("policy", gate.policy);
  gate.k = moe["gate"].value("k", gate.k);
  gate.threshold = moe["gate"].value("threshold", gate.threshold);
  gate.normalize = moe["gate"].value("normalize", gate.normalize);
  gate.combine = moe["gate"].value("combine", gate.combine);
  gate.k_max = moe["gate"].value("k_max", gate.k_max);
  config.moe.balance.loss = moe["balance"]["loss"];
  config.moe.balance.coefficient = moe["balance"]["coefficient"];
  config.moe.balance.z_coefficient = moe["balance"]["z_coefficient"];
  return config;
}

// |a - b| / |b| over a whole tensor; where b is as small as round-off, |a - b|.
double relative_norm_error(const Tensor& a, const Tensor& b) {
  Tensor difference = a.to(DType::f64).clone();
  Tensor expected = b.to(DType::f64);
  for (int64_t i = 0; i < difference.numel(); ++i)
    difference.data<double>()[i] -= expected.data<double>()[i];
  double norm = std::sqrt(dot(expected, expected));
  return std::sqrt(dot(difference, difference)) / (norm > 1e-9 ? norm : 1.0);
}

struct Bounds {
  DType type;
  double y, grad, loss;
};

void compare(const Fixture& fixture, const MoeLayerConfig& config, const Layout& layout,
             const Bounds& bounds) {
  GlobalBatch batch{fixture.read("inputs/x"), fixture.read("inputs/cotangent"),
                    fixture.file.read("inputs/valid")};
  LayerRun run = run_layer(config, batch, layout, [&](const std::string& name, Parameter& p) {
    p.master().copy_from(p.spec().part_of(fixture.read("weights/" + name)));
  });
  CHECK(relative_norm_error(run.y, fixture.read("f64/y")) <= bounds.y);
  CHECK(relative_norm_error(run.dx, fixture.read("f64/grads/x")) <= bounds.grad);
  for (auto& [name, grad] : run.grads) {
    INFO(name);
    CHECK(relative_norm_error(grad, fixture.read("f64/grads/" + name)) <= bounds.grad);
  }
  const auto& expected = fixture.json["f64"];
  const BalanceConfig& balance = config.moe.balance;
  double auxiliary = balance.coefficient * expected["balance"].get<double>() +
                     balance.z_coefficient * expected["z"].get<double>();
  CHECK(run.auxiliary == Approx(auxiliary).epsilon(bounds.loss).margin(1e-15));
  CHECK(run.loss + run.auxiliary ==
        Approx(expected["total"].get<double>()).epsilon(bounds.loss).margin(20 * bounds.loss));
  const auto& counts = fixture.json["tokens_with_k_experts"];
  for (size_t k = 1; k < counts.size(); ++k)
    CHECK(run.routing[0].sums.by_count[k] == counts[k].get<double>());
}

}  // namespace

TEST_CASE("MoE layer against PyTorch in f64, one rank and four", "[moe]") {
  REQUIRE(fixtures().size() >= 20);
  for (const auto& path : fixtures()) {
    Fixture fixture(path);
    MoeLayerConfig config = config_of(fixture.json);
    INFO(fixture.name);
    Bounds bounds{DType::f64, 1e-12, 1e-12, 1e-12};
    compare(fixture, config, {}, bounds);
    compare(fixture, config, {4, 2, 2, true}, bounds);
  }
}

TEST_CASE("MoE layer against PyTorch in f32 and bf16", "[moe]") {
  for (const auto& path : fixtures()) {
    Fixture fixture(path);
    MoeLayerConfig config = config_of(fixture.json);
    INFO(fixture.name);
    compare(fixture, config, {1, 1, 1, false, DType::f32}, {DType::f32, 1e-6, 1e-5, 1e-5});
    // In bf16 x itself is rounded, which may flip a decision, so only exact inputs are compared.
    if (fixture.name.find("ties") != std::string::npos)
      compare(fixture, config, {1, 1, 1, false, DType::bf16}, {DType::bf16, 1e-2, 2e-2, 1e-2});
  }
}

TEST_CASE("The plan is PyTorch's, expert by expert", "[moe]") {
  for (const auto& path : fixtures()) {
    Fixture fixture(path);
    INFO(fixture.name);
    MoeLayerConfig config = config_of(fixture.json);
    auto policy = make_gating_policy(config.moe.gate, config.moe.experts);
    Tensor x = fixture.file.read("inputs/x"), w = fixture.file.read("weights/gate.weight");
    Tensor valid = fixture.file.read("inputs/valid");
    GateScores scores = gate_scores(x, w);
    Selection s = policy->choose({.scores = scores, .mask = valid, .addresses = {}});
    CHECK(ints(s.row_start) == ints(fixture.file.read("plan/row_start")));
    CHECK(ints(s.expert) == ints(fixture.file.read("plan/expert")));
    Tensor weight =
        routing_weights(x, w, scores, s, config.moe.gate.combine == "renormalized", valid, nullptr);
    CHECK(relative_norm_error(weight, fixture.read("plan/weight")) < 1e-6);
    CHECK(relative_norm_error(scores.probabilities, fixture.read("probabilities")) < 1e-6);
  }
}

// Rounding x to bf16 moves the gate's logits: tokens near a border may choose otherwise. Those that
// choose the same agree to bf16's precision.
TEST_CASE("MoE layer in bf16 against PyTorch, token by token", "[moe]") {
  for (const auto& path : fixtures()) {
    Fixture fixture(path);
    INFO(fixture.name);
    if (fixture.file.read("plan/expert").numel() == 0) continue;
    MoeLayerConfig config = config_of(fixture.json);
    Tensor valid = fixture.file.read("inputs/valid");
    GateScores scores = gate_scores(fixture.file.read("inputs/x").to(DType::bf16),
                                    fixture.file.read("weights/gate.weight"));
    Selection chosen = make_gating_policy(config.moe.gate, config.moe.experts)
                           ->choose({.scores = scores, .mask = valid, .addresses = {}});
    Selection expected =
        make_selection(fixture.file.read("plan/row_start").to_host<int32_t>(),
                       fixture.file.read("plan/expert").to_host<int32_t>(), config.moe.experts);
    LayerRun run =
        run_layer(config, {fixture.read("inputs/x"), fixture.read("inputs/cotangent"), valid},
                  {1, 1, 1, false, DType::bf16}, [&](const std::string& name, Parameter& p) {
                    p.master().copy_from(fixture.read("weights/" + name));
                  });
    Tensor y = fixture.read("f64/y");
    double scale =
        std::sqrt(dot(y, y) / static_cast<double>(y.rows()));  // of a row, root mean square
    int64_t same_choice = 0;
    for (int64_t t = 0; t < y.rows(); ++t) {
      if (experts_of(chosen, t) != experts_of(expected, t)) continue;
      ++same_choice;
      INFO("token " << t);
      Tensor exact = y.slice(t, t + 1), error = run.y.slice(t, t + 1).clone();
      for (int64_t i = 0; i < error.numel(); ++i)
        error.data<double>()[i] -= exact.data<double>()[i];
      CHECK(std::sqrt(dot(error, error)) <= 0.02 * (scale + std::sqrt(dot(exact, exact))));
    }
    CHECK(same_choice >= y.rows() * 9 / 10);
  }
}

}  // namespace adagate::test
