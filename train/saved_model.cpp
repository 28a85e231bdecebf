#include "train/saved_model.h"

#include <numeric>

#include "core/io/safetensors.h"
#include "parallel/agree.h"
#include "parallel/rank_device.h"
#include "parallel/same_on_all_ranks.h"
#include "train/config/config_tree.h"
#include "train/config/yaml_loader.h"
#include "train/kept_tokenizer.h"
#include "train/run_state.h"
#include "train/task_table.h"

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

fs::path run_of_checkpoint(const fs::path& checkpoint) {
  // "." and what ends with a slash have no name of their own.
  fs::path whole = (fs::absolute(checkpoint) / "").lexically_normal().parent_path();
  fs::path above = whole.parent_path();
  return above.filename() == "checkpoints" ? above.parent_path() : above;
}

SavedModel load_model(const fs::path& path, const std::string& tokenizer,
                      std::shared_ptr<Communicator> world, const Task* own,
                      std::string_view device) {
  SavedModel saved;
  fs::path checkpoint;
  uint64_t manifest_hash = 0;
  on_all_ranks(*world, [&] {
    checkpoint = resolve_checkpoint(path);
    saved.manifest = read_manifest(checkpoint);
    manifest_hash = checksum_file(checkpoint / "manifest.json");
    ConfigTree tree;
    tree.add_text(saved.manifest.config_yaml, (checkpoint / "manifest.json").string());
    read_config(tree, saved.config);
    saved.run = run_of_checkpoint(checkpoint);
    saved.record = RunRecord::read(saved.manifest.state);
    saved.task = own ? own : &task_named(saved.config.task);
    check_task(saved.record, saved.config, *saved.task, checkpoint);
    const std::string& hash = saved.record.tokenizer_hash;
    if (tokenizer.empty()) {
      saved.tokenizer = load_run_tokenizer(saved.run, saved.config.data.tokenizer, hash);
      return;
    }
    saved.tokenizer = load_tokenizer(tokenizer);
    check(hash.empty() || hash == hash_text(saved.tokenizer->hash()),
          "tokenizer {} is not the one that {} was trained with ({}): name that one with "
          "--tokenizer",
          tokenizer, checkpoint.string(), saved.record.tokenizer);
  });
  same_on_all_ranks(*world,
                    {file_fact("the checkpoint", checkpoint.string(), manifest_hash),
                     {"the tokenizer", fmt::format("{:016x}", saved.tokenizer->hash())}},
                    "give all ranks the same one");
  ModelConfig& model = saved.config.model;
  if (model.vocabulary == 0) model.vocabulary = saved.tokenizer->vocabulary_size();
  check(model.vocabulary >= saved.tokenizer->vocabulary_size(),
        "{}: model.vocabulary is {}, its tokenizer has {} tokens: it is damaged",
        checkpoint.string(), model.vocabulary, saved.tokenizer->vocabulary_size());
  int64_t expert_parallel =
      saved.config.moe.experts > 0 ? std::gcd<int64_t>(world->size(), saved.config.moe.experts) : 1;
  RankDevice place = choose_rank_device(device, std::move(world));
  saved.mesh = make_mesh(std::move(place.world), static_cast<int>(expert_parallel));
  saved.model = saved.task->make_model(saved.config, saved.mesh);
  DType compute = saved.config.precision == "bf16" ? DType::bf16 : DType::f32;
  saved.store = std::make_unique<ParameterStore>(
      *saved.model, StoreOptions{.compute = compute, .device = place.device});
  load_checkpoint(checkpoint, model_states(*saved.store, *saved.model), saved.mesh, kModelKinds);
  saved.store->refresh_compute();
  return saved;
}

}  // namespace adagate
