// A whole run of the trainer, from configuration, text and initial weights to the lines of
// metrics.jsonl, against plain PyTorch (tests/reference/generate_run.py).
#include <filesystem>

#include "parallel/thread_communicator.h"
#include "tests/support/catch.h"
#include "tests/support/reference_fixture.h"
#include "tests/support/temp_folder.h"
#include "train/metrics_writer.h"
#include "train/trainer.h"

namespace adagate::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// Initial weights as a run reads them: by their names, without the fixture's prefix.
void write_weights(const ReferenceFixture& fixture, const fs::path& path) {
  std::vector<NamedTensor> weights;
  for (const auto& [name, entry] : fixture.tensors().tensors())
    weights.push_back({name, fixture.tensor(name)});
  write_safetensors(path, weights);
}

RunConfig config_of(const ReferenceFixture& fixture, const fs::path& folder) {
  RunConfig config;
  config.model = fixture.config<ModelConfig>("model");
  config.moe = fixture.config<MoeConfig>("moe");
  config.data = fixture.config<DataConfig>("data");
  config.train = fixture.config<TrainConfig>("train");
  config.data.train = (folder / "text.txt").string();
  config.checkpoint.initial_weights = (folder / "weights.safetensors").string();
  config.checkpoint.save_at_end = false;
  config.output = (folder / "run").string();
  return config;
}

std::vector<json> lines_of(const fs::path& path) {
  std::vector<json> lines;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) lines.push_back(json::parse(line));
  return lines;
}

// Every number of `expected` is in `found`, to a bound that f32 keeps.
void expect_figures(const json& found, const json& expected, const std::string& where) {
  INFO(where);
  if (expected.is_object() || expected.is_array()) {
    REQUIRE(found.type() == expected.type());
    if (expected.is_array()) REQUIRE(found.size() == expected.size());
    for (const auto& [key, value] : expected.items()) {
      if (expected.is_object()) REQUIRE(found.contains(key));
      const json& mine = expected.is_object() ? found.at(key) : found.at(std::stoul(key));
      expect_figures(mine, value, where + "." + key);
    }
    return;
  }
  double value = expected.get<double>();
  CHECK(found.get<double>() == Approx(value).epsilon(2e-5).margin(1e-6));
}

}  // namespace

TEST_CASE("a run shows the figures that PyTorch computes", "[train]") {
  ReferenceFixture fixture("run/moe");
  for (auto [ranks, expert] : {std::pair{1, 1}, {2, 2}}) {
    INFO(ranks << " ranks");
    TempFolder temporary;
    const fs::path& folder = temporary.path();
    temporary.write("text.txt", fixture.json().at("text").get<std::string>());
    write_weights(fixture, folder / "weights.safetensors");
    fs::path metrics = folder / "metrics.jsonl";
    int expert_parallel = expert;
    run_ranks(ranks, [&](std::shared_ptr<Communicator> world) {
      RunConfig config = config_of(fixture, folder);
      config.parallel.expert = expert_parallel;
      std::unique_ptr<MetricsWriter> writer;
      if (world->rank() == 0) writer = std::make_unique<MetricsWriter>(metrics, -1);
      Trainer trainer(config, {}, world);
      if (writer) trainer.observe(*writer);
      trainer.run();
    });
    std::vector<json> steps, evaluations;
    for (const json& line : lines_of(metrics)) {
      if (line.at("type") == "step") steps.push_back(line);
      if (line.at("type") == "evaluation") evaluations.push_back(line);
    }
    expect_figures(steps, fixture.json().at("steps"), "steps");
    expect_figures(evaluations, fixture.json().at("evaluations"), "evaluations");
  }
}

}  // namespace adagate::test
