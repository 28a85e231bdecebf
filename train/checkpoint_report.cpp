#include "train/checkpoint_report.h"

#include "core/base/counted.h"
#include "core/io/safetensors.h"
#include "train/checkpoint.h"

namespace adagate {
namespace {

std::string shards_text(const std::filesystem::path& path, const Manifest& manifest) {
  std::string text;
  for (const ShardInfo& shard : manifest.shards) {
    bool sound = checksum_file(path / shard.file) == shard.checksum;
    text += fmt::format("  {:<36} {:>14} bytes  {}\n", shard.file, shard.bytes,
                        sound ? "sound" : "DAMAGED: does not match its checksum");
  }
  return text;
}

std::string tensors_text(const Manifest& manifest) {
  constexpr std::string_view kValue = "value/";
  std::string text;
  int64_t elements = 0, moments = 0;
  for (auto& [key, tensor] : manifest.tensors) {
    if (key.rfind(kValue, 0) != 0) {
      moments++;
      continue;
    }
    elements += tensor.shape.numel();
    text +=
        fmt::format("  {:<48} {:<5} {:<20} {}\n", key.substr(kValue.size()), name_of(tensor.dtype),
                    tensor.shape.str(),
                    tensor.slices.size() > 1 ? fmt::format("{} slices", tensor.slices.size()) : "");
  }
  return text +
         fmt::format("{} parameters in all, {} tensors of optimizer state\n", elements, moments);
}

}  // namespace

std::string checkpoint_report(const std::filesystem::path& path) {
  Manifest manifest = read_manifest(path);
  const TrainingState& state = manifest.state;
  std::string text = fmt::format(
      "{}: checkpoint\n  step              {}\n  epoch             {} ({} steps into it)\n"
      "  samples, targets  {}, {}\n  written by        {}, {} expert-parallel\n",
      path.string(), state.step, state.epoch, state.epoch_step, state.consumed_samples,
      state.consumed_tokens, counted(manifest.ranks, "rank"), manifest.expert_parallel);
  for (auto& [key, value] : state.extra) text += fmt::format("  {:<17} {}\n", key, value);
  text += "shards\n" + shards_text(path, manifest);
  text += "parameters\n" + tensors_text(manifest);
  return text + "configuration\n" + manifest.config_yaml;
}

}  // namespace adagate
