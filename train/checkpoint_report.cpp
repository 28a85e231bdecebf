#include "train/checkpoint_report.h"

#include "core/base/counted.h"
#include "core/io/safetensors.h"
#include "train/checkpoint.h"

namespace adagate {
namespace {

using nlohmann::ordered_json;

Report shards_report(const std::filesystem::path& path, const Manifest& manifest) {
  Report report{.json = ordered_json::array()};
  for (const ShardInfo& shard : manifest.shards) {
    bool sound = checksum_file(path / shard.file) == shard.checksum;
    report.text += fmt::format("  {:<36} {:>14} bytes  {}\n", shard.file, shard.bytes,
                               sound ? "sound" : "DAMAGED: does not match its checksum");
    report.json.push_back({{"file", shard.file}, {"bytes", shard.bytes}, {"sound", sound}});
  }
  return report;
}

// A line of the text, an object of the list.
void add_tensor(const std::string& name, const StoredTensor& tensor, std::string& text,
                ordered_json& list) {
  size_t slices = tensor.slices.size();
  text += fmt::format("  {:<48} {:<5} {:<20} {}\n", name, name_of(tensor.dtype), tensor.shape.str(),
                      slices > 1 ? fmt::format("{} slices", slices) : "");
  list.push_back({{"name", name},
                  {"type", name_of(tensor.dtype)},
                  {"shape", std::vector<int64_t>(tensor.shape.begin(), tensor.shape.end())},
                  {"slices", slices}});
}

// An object with the lists of the parameters' tensors and of other state, and the totals.
Report tensors_report(const Manifest& manifest) {
  constexpr std::string_view kValue = "value/";
  std::string text, others;
  ordered_json tensors = ordered_json::array(), states = ordered_json::array();
  int64_t elements = 0, moments = 0;
  for (auto& [key, tensor] : manifest.tensors) {
    if (key.starts_with(kValue)) {
      elements += tensor.shape.numel();
      add_tensor(key.substr(kValue.size()), tensor, text, tensors);
    } else if (kind_of(key).starts_with("adam")) {
      moments++;
    } else {
      add_tensor(key, tensor, others, states);
    }
  }
  text += fmt::format("{} parameters in all, {} tensors of optimizer state\n", elements, moments);
  if (!others.empty()) text += "other state\n" + others;
  return {text,
          {{"tensors", tensors},
           {"parameters", elements},
           {"optimizer_tensors", moments},
           {"states", states}}};
}

}  // namespace

Report checkpoint_report(const std::filesystem::path& path) {
  Manifest manifest = read_manifest(path);
  const TrainingState& state = manifest.state;
  std::string text = fmt::format(
      "{}: checkpoint\n  step              {}\n  epoch             {} ({} steps into it)\n"
      "  samples, targets  {}, {}\n  written by        {}, {} expert-parallel\n",
      path.string(), state.step, state.epoch, state.epoch_step, state.consumed_samples,
      state.consumed_tokens, counted(manifest.ranks, "rank"), manifest.expert_parallel);
  for (auto& [key, value] : state.extra) text += fmt::format("  {:<17} {}\n", key, value);
  Report shards = shards_report(path, manifest), tensors = tensors_report(manifest);
  text += "shards\n" + shards.text + "parameters\n" + tensors.text + "configuration\n" +
          manifest.config_yaml;
  ordered_json json = {{"path", path.string()},
                       {"kind", "checkpoint"},
                       {"step", state.step},
                       {"epoch", state.epoch},
                       {"epoch_step", state.epoch_step},
                       {"consumed_samples", state.consumed_samples},
                       {"consumed_tokens", state.consumed_tokens},
                       {"ranks", manifest.ranks},
                       {"expert_parallel", manifest.expert_parallel},
                       {"extra", state.extra},
                       {"shards", shards.json}};
  json.update(tensors.json);
  json["configuration"] = manifest.config_yaml;
  return {text, json};
}

}  // namespace adagate
