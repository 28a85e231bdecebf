#include "train/resume.h"

#include <algorithm>
#include <charconv>

#include "train/config/config_writer.h"
#include "train/config/yaml_loader.h"

namespace adagate {
namespace fs = std::filesystem;
namespace {

// What a resumed run must have as it was, and neither tensors nor positions would show.
constexpr std::string_view kFixedKeys[] = {"model.heads",        "model.rotary_base",
                                           "model.norm_epsilon", "model.activation",
                                           "data.shuffle",       "data.keep_last_batch"};

std::string text_in(const TrainingState& state, const std::string& name) {
  auto it = state.extra.find(name);
  return it == state.extra.end() ? "" : it->second;
}

int64_t number_in(const TrainingState& state, const std::string& name) {
  std::string text = text_in(state, name);
  const char *begin = text.data(), *end = begin + text.size();
  int64_t value = 0;
  auto [stop, error] = std::from_chars(begin, end, value);
  check(!text.empty() && error == std::errc() && stop == end,
        "resume: the checkpoint's manifest has no number {}: it is damaged, or no training run "
        "wrote it",
        name);
  return value;
}

}  // namespace

std::string hash_text(uint64_t hash) {
  return fmt::format("{:016x}", hash);
}

void RunRecord::write(TrainingState& state) const {
  state.extra["seed"] = std::to_string(seed);
  state.extra["dataset_size"] = std::to_string(dataset_size);
  state.extra["global_batch"] = std::to_string(global_batch);
  state.extra["skipped_steps"] = std::to_string(skipped_steps);
  state.extra["skipped_in_a_row"] = std::to_string(skipped_in_a_row);
  state.extra["evaluation_due"] = evaluation_due ? "1" : "0";
  state.extra["data_hash"] = data_hash;
  state.extra["tokenizer"] = tokenizer;
  state.extra["tokenizer_hash"] = tokenizer_hash;
}

RunRecord RunRecord::read(const TrainingState& state) {
  return {.seed = number_in(state, "seed"),
          .dataset_size = number_in(state, "dataset_size"),
          .global_batch = number_in(state, "global_batch"),
          .skipped_steps = number_in(state, "skipped_steps"),
          // Earlier versions saved none.
          .skipped_in_a_row =
              text_in(state, "skipped_in_a_row").empty() ? 0 : number_in(state, "skipped_in_a_row"),
          .evaluation_due = text_in(state, "evaluation_due") == "1",
          .data_hash = text_in(state, "data_hash"),
          .tokenizer = text_in(state, "tokenizer"),
          .tokenizer_hash = text_in(state, "tokenizer_hash")};
}

void check_resumable(const fs::path& checkpoint, const RunConfig& config,
                     const Tokenizer& tokenizer) {
  Manifest manifest = read_manifest(checkpoint);
  // The tensors alone would not show that their numbers stand for other tokens.
  std::string hash = text_in(manifest.state, "tokenizer_hash");
  check(
      hash == hash_text(tokenizer.hash()),
      "{} was trained with another tokenizer ({}, hash {}) than data.tokenizer {} (hash {}): name "
      "that one, or start anew in another --output",
      checkpoint.string(), text_in(manifest.state, "tokenizer"), hash, config.data.tokenizer,
      hash_text(tokenizer.hash()));
  ConfigTree tree;
  tree.add_text(manifest.config_yaml, (checkpoint / "manifest.json").string());
  auto then = list_fields(read_config<RunConfig>(tree)), now = list_fields(config);
  for (size_t i = 0; i < now.size(); ++i) {
    std::string key = now[i].section + "." + now[i].key;
    bool fixed =
        std::find(std::begin(kFixedKeys), std::end(kFixedKeys), key) != std::end(kFixedKeys);
    check(!fixed || now[i].value == then[i].value,
          "{} is {}, but the run that saved {} had {}: resume with that, or start anew in another "
          "--output",
          key, now[i].value, checkpoint.string(), then[i].value);
  }
}

void restore_position(const TrainingState& state, const RunConfig& config,
                      const std::string& data_hash, DataLoader& loader) {
  RunRecord record = RunRecord::read(state);
  check(record.data_hash.empty() || record.data_hash == data_hash,
        "data.train is {}, whose text is not the one that the saved run was trained on: resume "
        "on the same data, or start anew in another --output",
        config.data.train);
  DataState data = loader.state();
  data.position = {state.epoch, state.epoch_step};
  data.seed = static_cast<uint64_t>(record.seed);
  data.dataset_size = record.dataset_size;
  data.global_batch = record.global_batch;
  loader.restore(data);
}

}  // namespace adagate
