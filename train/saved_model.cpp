#include "train/saved_model.h"

#include <numeric>

#include "parallel/agree.h"
#include "train/config/config_tree.h"
#include "train/config/yaml_loader.h"

namespace adagate {
namespace fs = std::filesystem;

fs::path resolve_checkpoint(const fs::path& path) {
  std::error_code error;
  check(fs::exists(path, error), "checkpoint {} does not exist", path.string());
  if (fs::exists(path / "manifest.json", error)) return path;
  for (const fs::path& directory : {path / "checkpoints", path}) {
    if (auto latest = find_latest(directory)) return *latest;
  }
  return path;  // reading it says what is missing
}

SavedModel load_model(const fs::path& path, const std::string& tokenizer,
                      std::shared_ptr<Communicator> world) {
  SavedModel saved;
  fs::path checkpoint;
  on_all_ranks(*world, [&] {
    checkpoint = resolve_checkpoint(path);
    saved.manifest = read_manifest(checkpoint);
    ConfigTree tree;
    tree.add_text(saved.manifest.config_yaml, (checkpoint / "manifest.json").string());
    read_config(tree, saved.config);
    std::string spec = tokenizer.empty() ? saved.config.data.tokenizer : tokenizer;
    saved.tokenizer = load_tokenizer(spec);
    auto& extra = saved.manifest.state.extra;
    std::string hash = fmt::format("{:016x}", saved.tokenizer->hash());
    check(extra["tokenizer_hash"].empty() || extra["tokenizer_hash"] == hash,
          "tokenizer {} is not the one that {} was trained with ({}): name that one with "
          "--tokenizer",
          spec, checkpoint.string(), extra["tokenizer"]);
  });
  ModelConfig& model = saved.config.model;
  if (model.vocabulary == 0) model.vocabulary = saved.tokenizer->vocabulary_size();
  int64_t expert_parallel =
      saved.config.moe.experts > 0 ? std::gcd<int64_t>(world->size(), saved.config.moe.experts) : 1;
  saved.mesh = make_mesh(std::move(world), static_cast<int>(expert_parallel));
  saved.model = std::make_unique<Decoder>(model, saved.config.moe, saved.mesh);
  DType compute = saved.config.precision == "bf16" ? DType::bf16 : DType::f32;
  saved.store = std::make_unique<ParameterStore>(*saved.model, StoreOptions{.compute = compute});
  std::vector<CheckpointTensor> values;
  for (Parameter* p : saved.store->parameters()) values.push_back({"value", p, p->master()});
  load_checkpoint(checkpoint, values, saved.mesh);
  saved.store->refresh_compute();
  return saved;
}

}  // namespace adagate
