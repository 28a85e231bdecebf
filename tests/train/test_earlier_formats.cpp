// Checkpoints that earlier versions wrote (fixtures/README.md) are gone on from.
#include <mutex>

#include "core/io/safetensors.h"
#include "core/optim/adamw.h"
#include "models/decoder.h"
#include "parallel/thread_communicator.h"
#include "tests/support/catch.h"
#include "tests/support/test_paths.h"
#include "tests/train/watched_run.h"
#include "train/config/yaml_loader.h"
#include "train/run_state.h"

namespace adagate {
namespace {

namespace fs = std::filesystem;

const fs::path kCheckpoint = source_path("tests/train/fixtures/format_2/step-00000006");

// That of the run that wrote it, on a text that lies elsewhere by now.
RunConfig config_of_fixture(const TempFolder& folder, int64_t expert_parallel) {
  Manifest manifest = read_manifest(kCheckpoint);
  ConfigTree tree;
  tree.add_text(manifest.config_yaml, "manifest");
  auto config = read_config<RunConfig>(tree);
  config.data.train = folder.write("text.txt", tiny::letters(29));
  config.output = folder.path("run");
  config.checkpoint.resume = kCheckpoint.string();
  config.checkpoint.every = tiny::steps(0);
  config.parallel.expert = expert_parallel;
  return config;
}

// All tensors of its two shards under their global names, each expert's behind the other's.
std::map<std::string, std::vector<float>> stored_values() {
  std::map<std::string, std::vector<float>> values;
  for (int shard : {0, 1}) {
    SafetensorsFile file(kCheckpoint / shard_name(shard, 2));
    for (auto& [key, entry] : file.tensors()) {
      auto part = file.read(key).to_floats();
      auto& whole = values[key.substr(0, key.find('@'))];
      whole.insert(key.ends_with("@0") ? whole.begin() : whole.end(), part.begin(), part.end());
    }
  }
  return values;
}

// The part of a rank that holds these entries of the first dimension.
std::vector<float> part_of(const std::vector<float>& whole, const StateTensor& state) {
  int64_t row = state.tensor.numel() / state.count();
  auto first = whole.begin() + state.shard.begin * row;
  return {first, first + state.tensor.numel()};
}

}  // namespace

TEST_CASE("format 2: values and moments are read on any layout") {
  auto stored = stored_values();
  TempFolder folder;
  for (auto [ranks, expert_parallel] : {std::pair{1, 1}, {2, 1}, {2, 2}, {4, 2}}) {
    INFO(ranks << " ranks, experts on " << expert_parallel);
    RunConfig config = config_of_fixture(folder, expert_parallel);
    config.model.vocabulary = 257;
    std::mutex mutex;
    std::vector<std::string> wrong;
    run_ranks(ranks, [&](std::shared_ptr<Communicator> world) {
      Mesh mesh = make_mesh(world, static_cast<int>(config.parallel.expert));
      Decoder model(config.model, config.moe, mesh);
      ParameterStore store(model, {});
      AdamW adamw(store, {});
      std::vector<StateTensor> states = model_states(store, model);
      for (const StateTensor& moment : adamw.states()) states.push_back(moment);
      Manifest manifest = load_checkpoint(kCheckpoint, states, mesh);
      std::lock_guard lock(mutex);
      if (manifest.tensors.size() != stored.size()) wrong.emplace_back("their number");
      for (const StateTensor& state : states)
        if (state.tensor.to_floats() != part_of(stored.at(state.name), state))
          wrong.push_back(state.name);
    });
    CHECK(wrong.empty());
  }
}

TEST_CASE("format 2: a run goes on in the middle of its epoch") {
  // Losses of steps 7 and 8 of the run that wrote it.
  const std::vector<double> expected = {5.29775591640, 5.33586469493};
  for (auto [ranks, expert_parallel] : {std::pair{1, 1}, {2, 2}}) {
    TempFolder folder;
    RunConfig config = config_of_fixture(folder, expert_parallel);
    run_ranks(ranks, [&](std::shared_ptr<Communicator> world) {
      tiny::Watcher seen;
      Trainer trainer(config, {}, world);
      trainer.observe(seen);
      TrainingState state = trainer.state();
      check(state.step == 6 && state.epoch == 1 && state.epoch_step == 2, "at another step");
      check(state.consumed_samples == 12 && state.consumed_tokens == 45, "of other samples");
      trainer.run();
      auto losses = seen.losses();
      check(losses.size() == expected.size(), "{} steps instead of 2", losses.size());
      for (size_t i = 0; i < losses.size(); ++i)
        check(std::abs(losses[i] - expected[i]) < 1e-5, "step {}: a loss of {} instead of {}",
              7 + i, losses[i], expected[i]);
    });
  }
}

}  // namespace adagate
