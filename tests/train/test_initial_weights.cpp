// checkpoint.initial_weights: a run that starts from a file instead of random weights.
#include <cstring>
#include <filesystem>

#include "models/weights.h"
#include "tests/support/catch.h"
#include "tests/train/watched_run.h"

namespace adagate {
namespace {

namespace fs = std::filesystem;

RunConfig sparse_config(const TempFolder& folder, const std::string& name) {
  RunConfig config = tiny::run_config(folder);
  config.model.layers = 2;
  config.moe.experts = 2;
  config.moe.every = 2;
  config.output = folder.path(name);
  return config;
}

}  // namespace

TEST_CASE("a run's seed draws its dropout, beside weights and data") {
  TempFolder folder;
  RunConfig config = sparse_config(folder, "weights");
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
    return tiny::watch(config).losses();
  };
  CHECK(with_seed(1, 0.0) == with_seed(2, 0.0));
  CHECK(with_seed(1, 0.3) == with_seed(1, 0.3));
  CHECK(with_seed(1, 0.3)[0] != with_seed(2, 0.3)[0]);
}

TEST_CASE("initial weights: read from a file, and a wrong file is refused") {
  TempFolder folder;
  fs::path file = folder.path() / "weights.safetensors";
  Trainer first(sparse_config(folder, "first"), {}, make_self_mesh().world);
  export_weights(file, first.store().parameters(), first.mesh());

  RunConfig config = sparse_config(folder, "second");
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
