// checkpoint.initial_weights: a run that starts from a file instead of random weights.
#include <cstring>
#include <filesystem>
#include <fstream>

#include "tests/support/catch.h"
#include "tests/support/temp_folder.h"
#include "train/trainer.h"

namespace adagate {
namespace {

namespace fs = std::filesystem;

RunConfig tiny_config(const fs::path& folder, const std::string& name) {
  std::ofstream(folder / "text.txt") << "one two three four five six seven eight nine ten\n";
  RunConfig config;
  config.model.layers = 2;
  config.model.width = 8;
  config.model.heads = 2;
  config.model.context = 8;
  config.moe.experts = 2;
  config.moe.every = 2;
  config.train.batch = 2;
  config.train.length = {2, Duration::Unit::steps};
  config.checkpoint.save_at_end = false;
  config.data.train = (folder / "text.txt").string();
  config.data.prefetch = 0;
  config.output = (folder / name).string();
  return config;
}

struct Losses final : TrainingObserver {
  std::vector<double> values;
  void on_step(const StepReport& report) override { values.push_back(report.result.loss); }
};

std::vector<double> losses_of(const RunConfig& config) {
  Losses losses;
  Trainer trainer(config, {}, make_self_mesh().world);
  trainer.observe(losses);
  trainer.run();
  return losses.values;
}

}  // namespace

TEST_CASE("a run's seed draws its dropout, beside weights and data") {
  TempFolder folder;
  RunConfig config = tiny_config(folder.path(), "weights");
  fs::path file = folder.path() / "weights.safetensors";
  {
    Trainer first(config, {}, make_self_mesh().world);
    export_weights(file, first.store().parameters(), first.mesh());
  }
  // The same weights and the same order of samples whatever the seed.
  config.checkpoint.initial_weights = file.string();
  config.data.shuffle = false;
  auto with_seed = [&](int64_t seed, double dropout) {
    config.seed = seed;
    config.model.dropout = dropout;
    config.output = (folder.path() / fmt::format("seed{}_{}", seed, dropout)).string();
    fs::remove_all(config.output);
    return losses_of(config);
  };
  CHECK(with_seed(1, 0.0) == with_seed(2, 0.0));
  CHECK(with_seed(1, 0.3) == with_seed(1, 0.3));
  CHECK(with_seed(1, 0.3)[0] != with_seed(2, 0.3)[0]);
}

TEST_CASE("initial weights: read from a file, and a wrong file is refused") {
  TempFolder folder;
  fs::path file = folder.path() / "weights.safetensors";
  Trainer first(tiny_config(folder.path(), "first"), {}, make_self_mesh().world);
  export_weights(file, first.store().parameters(), first.mesh());

  RunConfig config = tiny_config(folder.path(), "second");
  config.seed = 2;
  config.checkpoint.initial_weights = file.string();
  Trainer second(config, {}, make_self_mesh().world);
  REQUIRE(second.store().parameters().size() == first.store().parameters().size());
  for (size_t i = 0; i < first.store().parameters().size(); ++i) {
    const Tensor& a = first.store().parameters()[i]->master();
    const Tensor& b = second.store().parameters()[i]->master();
    INFO(first.store().parameters()[i]->name());
    CHECK(std::memcmp(a.raw(), b.raw(), a.bytes()) == 0);
  }
  second.run();

  config.output = (folder.path() / "third").string();
  config.model.width = 12;
  CHECK_THROWS_WITH(Trainer(config, {}, make_self_mesh().world),
                    Catch::Contains("embedding.tokens has shape"));
  config.checkpoint.initial_weights = (folder.path() / "none.safetensors").string();
  CHECK_THROWS_WITH(Trainer(config, {}, make_self_mesh().world),
                    Catch::Contains("none.safetensors"));
}

}  // namespace adagate
