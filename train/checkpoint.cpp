#include "train/checkpoint.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <set>

#include "core/base/log.h"
#include "core/io/atomic_file.h"
#include "core/io/safetensors.h"
#include "parallel/agree.h"
#include "parallel/same_on_all_ranks.h"
#include "train/checkpoint_layout.h"
#include "train/run_state.h"

namespace adagate {
namespace fs = std::filesystem;
namespace {

constexpr const char* kOtherModel =
    "it is a checkpoint of another model; go on with the model and moe sections it was trained "
    "with, or start anew in another output directory";

constexpr const char* kNotTaken =
    "go on with the program and configuration that saved it, or start anew in another output "
    "directory";

// What to do about a tensor that only the run or only the checkpoint has.
const char* remedy_for(std::string_view name) {
  std::string_view kind = kind_of(name);
  bool of_model =
      std::find(std::begin(kModelKinds), std::end(kModelKinds), kind) != std::end(kModelKinds);
  return of_model || kind.starts_with("adam") ? kOtherModel : kNotTaken;
}

// What every rank has of every state, those of rank 0 first. Collective.
std::vector<HeldPart> gather_parts(const std::vector<StateTensor>& states, Communicator& world) {
  std::vector<RankFact> facts;
  std::vector<HeldPart> mine;
  for (const StateTensor& state : states) {
    facts.push_back({state.name, fmt::format("{} {} cut along {}", name_of(state.tensor.dtype()),
                                             state.shape, state.shard.dim)});
    mine.push_back({state.shard.begin, state.count()});
  }
  same_on_all_ranks(world, facts, "all ranks of a run save the same state");
  std::vector<HeldPart> all(mine.size() * static_cast<size_t>(world.size()));
  world.all_gather(mine.data(), all.data(), static_cast<int64_t>(2 * mine.size()), DType::i64);
  return all;
}

std::map<std::string, const StateTensor*> by_name(const std::vector<StateTensor>& states) {
  std::map<std::string, const StateTensor*> named;
  for (const StateTensor& state : states)
    check(named.emplace(state.name, &state).second, "two states are called {}", state.name);
  return named;
}

Manifest describe(const std::vector<StateTensor>& states, const std::vector<PlannedSlice>& plan,
                  const TrainingState& state, const std::string& config_yaml, const Mesh& mesh) {
  Manifest m;
  m.state = state;
  m.config_yaml = config_yaml;
  m.ranks = mesh.ranks();
  m.expert_parallel = mesh.expert_parallel();
  for (const StateTensor& t : states) {
    StoredTensor& stored = m.tensors[t.name];
    stored.shape = t.shape;
    stored.dtype = t.tensor.dtype();
    stored.cut = t.shard.dim == Shard::kWhole ? 0 : t.shard.dim;
  }
  for (const PlannedSlice& s : plan) {
    m.tensors[s.tensor].slices.push_back({s.shard, s.begin, s.count, s.key});
  }
  return m;
}

}  // namespace

fs::path save_checkpoint(const fs::path& directory, const std::vector<StateTensor>& states,
                         const TrainingState& state, const std::string& config_yaml,
                         const Mesh& mesh, int64_t keep) {
  Communicator& world = *mesh.world;
  int64_t rank = world.rank(), ranks = world.size();
  fs::path final = directory / step_name(state.step);
  fs::path temporary = directory / half_written_name(state.step);
  bool made = false;
  try {
    std::map<std::string, const StateTensor*> named;
    on_all_ranks(world, [&] { named = by_name(states); });
    auto plan = plan_slices(states, gather_parts(states, world));
    on_all_ranks(world, [&] {
      if (rank != 0) return;
      make_directories(directory);
      check_checkpoint_names(directory, state.step, state.step);
      clean_checkpoints(directory);
      make_half_written(directory, state.step);
      made = true;
    });
    int64_t written[2] = {0, 0};  // bytes and checksum of this rank's shard
    on_all_ranks(world, [&] {
      std::vector<NamedTensor> mine;
      for (const PlannedSlice& s : plan)
        if (s.shard == rank) mine.push_back({s.key, named.at(s.tensor)->tensor.detach()});
      fs::path shard = temporary / shard_name(rank, ranks);
      uint64_t checksum = write_safetensors(shard, mine, {{"format", "adagate"}});
      written[0] = static_cast<int64_t>(fs::file_size(shard));
      std::memcpy(&written[1], &checksum, 8);
    });
    std::vector<int64_t> all(static_cast<size_t>(2 * ranks));
    world.all_gather(written, all.data(), 2, DType::i64);
    on_all_ranks(world, [&] {
      if (rank != 0) return;
      Manifest manifest = describe(states, plan, state, config_yaml, mesh);
      for (int64_t r = 0; r < ranks; ++r) {
        ShardInfo shard{shard_name(r, ranks), all[static_cast<size_t>(2 * r)], 0};
        std::memcpy(&shard.checksum, &all[static_cast<size_t>(2 * r + 1)], 8);
        manifest.shards.push_back(shard);
      }
      write_file_atomically(temporary / kManifestFile, manifest_to_json(manifest));
      put_in_place(temporary, final);
      rotate_checkpoints(directory, keep, final);
    });
  } catch (const Error& e) {
    if (made) remove_checkpoint(temporary);
    fail("the checkpoint of step {} was not saved: {}", state.step, e.what());
  }
  return final;
}

namespace {

// Adds to a message about `path` which checkpoint to take instead.
std::string with_alternative(const fs::path& path, const std::string& message) {
  int64_t step = step_in(path.filename().string()).value_or(INT64_MAX);
  auto previous = find_latest(path.parent_path(), step);
  if (!previous || *previous == path) return message;
  return fmt::format("{}; the checkpoint before it is {} (--resume={} --overwrite)", message,
                     previous->filename().string(), previous->string());
}

void verify_shards(const fs::path& path, const Manifest& manifest, int64_t rank, int64_t ranks) {
  for (size_t i = static_cast<size_t>(rank); i < manifest.shards.size();
       i += static_cast<size_t>(ranks)) {
    const ShardInfo& shard = manifest.shards[i];
    fs::path file = path / shard.file;
    std::error_code error;
    check(fs::exists(file, error), "{} is missing", file.string());
    auto bytes = static_cast<int64_t>(fs::file_size(file, error));
    check(bytes == shard.bytes, "{} has {} bytes instead of {}: it is truncated or changed",
          file.string(), bytes, shard.bytes);
    check(checksum_file(file) == shard.checksum,
          "{} does not match its checksum: its content is damaged", file.string());
  }
}

Shape slice_shape(const StoredTensor& stored, int64_t count) {
  if (stored.cut == Shard::kElements) return {count};
  Shape shape = stored.shape;
  if (shape.rank() > 0) shape[stored.cut] = count;
  return shape;
}

// The shards hold what the manifest says and nothing else.
void check_slices(const Manifest& manifest,
                  const std::vector<std::unique_ptr<SafetensorsFile>>& shards) {
  std::set<std::pair<int64_t, std::string>> named;
  for (const auto& [key, stored] : manifest.tensors) {
    for (const SliceInfo& slice : stored.slices) {
      named.insert({slice.shard, slice.key});
      const std::string& file = manifest.shards[static_cast<size_t>(slice.shard)].file;
      const SafetensorsEntry& entry = shards[static_cast<size_t>(slice.shard)]->entry(slice.key);
      Shape shape = slice_shape(stored, slice.count);
      check(entry.shape == shape && entry.dtype == stored.dtype,
            "{}: {} is {} {}, the manifest says {} {}", file, slice.key, entry.type,
            entry.shape.str(), name_of(stored.dtype), shape.str());
    }
  }
  for (size_t i = 0; i < shards.size(); ++i)
    for (const auto& [key, entry] : shards[i]->tensors())
      check(named.count({static_cast<int64_t>(i), key}) > 0,
            "{} has the tensor {}, which the manifest does not name", manifest.shards[i].file, key);
}

Tensor flat(const Tensor& t) {
  return t.detach().reshape({t.numel()});
}

// Copies what overlaps this rank's part of a stored tensor.
void read_slices(const StoredTensor& stored, const StateTensor& state,
                 const std::vector<std::unique_ptr<SafetensorsFile>>& shards) {
  PartLayout part = part_layout(state.shape, state.shard.dim, state.shard.begin, state.count());
  Tensor target = flat(state.tensor);
  for (const SliceInfo& slice : stored.slices) {
    Tensor source;
    for_each_overlap(part, part_layout(stored.shape, stored.cut, slice.begin, slice.count),
                     [&](int64_t to, int64_t from, int64_t n) {
                       if (!source)
                         source = flat(shards[static_cast<size_t>(slice.shard)]->read(slice.key));
                       target.slice(to, to + n).copy_from(source.slice(from, from + n));
                     });
  }
}

// Both ways: what is asked for is stored alike, what is stored is asked for.
void check_names(const Manifest& manifest, const std::vector<StateTensor>& states,
                 std::span<const std::string_view> kinds, const std::string& source) {
  auto asked = by_name(states);
  for (const StateTensor& t : states) {
    auto it = manifest.tensors.find(t.name);
    check(it != manifest.tensors.end(), "{} has no tensor {}: {}", source, t.name,
          remedy_for(t.name));
    const StoredTensor& stored = it->second;
    check(stored.shape == t.shape, "{}: {} has shape {}, the model {}: {}", source, t.name,
          stored.shape.str(), t.shape.str(), remedy_for(t.name));
    check(stored.dtype == t.tensor.dtype(), "{}: {} is stored as {}, but is {} here: {}", source,
          t.name, name_of(stored.dtype), name_of(t.tensor.dtype()), remedy_for(t.name));
  }
  for (auto& [name, stored] : manifest.tensors) {
    bool counts =
        kinds.empty() || std::find(kinds.begin(), kinds.end(), kind_of(name)) != kinds.end();
    check(!counts || asked.count(name) > 0, "{} has the tensor {}, the model does not: {}", source,
          name, remedy_for(name));
  }
}

}  // namespace

Manifest read_manifest(const fs::path& path) {
  std::error_code error;
  check(fs::exists(path, error), "checkpoint {} does not exist", path.string());
  check(fs::exists(path / kManifestFile, error), "{}",
        with_alternative(path, fmt::format("{} is no complete checkpoint: it has no {}",
                                           path.string(), kManifestFile)));
  try {
    return manifest_from_json(read_text_file(path / kManifestFile, "manifest"),
                              (path / kManifestFile).string());
  } catch (const Error& e) {
    throw Error(with_alternative(path, e.what()));
  }
}

Manifest load_checkpoint(const fs::path& path, const std::vector<StateTensor>& states,
                         const Mesh& mesh, std::span<const std::string_view> kinds) {
  Communicator& world = *mesh.world;
  Manifest manifest;
  on_all_ranks(world, [&] {
    manifest = read_manifest(path);
    check_names(manifest, states, kinds, path.string());
  });
  on_all_ranks(world, [&] {
    try {
      verify_shards(path, manifest, world.rank(), world.size());
    } catch (const Error& e) {
      throw Error(with_alternative(path, e.what()));
    }
  });
  on_all_ranks(world, [&] {
    std::vector<std::unique_ptr<SafetensorsFile>> shards;
    for (const ShardInfo& shard : manifest.shards) {
      shards.push_back(std::make_unique<SafetensorsFile>(path / shard.file));
    }
    check_slices(manifest, shards);
    for (const StateTensor& t : states) read_slices(manifest.tensors.at(t.name), t, shards);
  });
  return manifest;
}

}  // namespace adagate
