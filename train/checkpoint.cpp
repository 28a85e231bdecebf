#include "train/checkpoint.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <set>

#include "core/base/log.h"
#include "core/io/atomic_file.h"
#include "core/io/safetensors.h"
#include "parallel/agree.h"
#include "train/checkpoint_layout.h"

namespace adagate {
namespace fs = std::filesystem;
namespace {

constexpr const char* kOtherModel =
    "it is a checkpoint of another model; go on with the model and moe sections it was trained "
    "with, or start anew in another output directory";

// The part of a rank's tensor that is slice [begin, begin + count) of the whole.
Tensor local_piece(const CheckpointTensor& t, int64_t begin, int64_t count) {
  if (t.parameter->spec().global_dim0 == 0) return t.tensor.detach();
  int64_t first = begin - t.parameter->spec().shard_begin;
  return t.tensor.slice(first, first + count);
}

Manifest describe(const std::vector<CheckpointTensor>& tensors,
                  const std::vector<PlannedSlice>& plan, const TrainingState& state,
                  const std::string& config_yaml, const Mesh& mesh) {
  Manifest m;
  m.state = state;
  m.config_yaml = config_yaml;
  m.ranks = mesh.ranks();
  m.expert_parallel = mesh.expert_parallel();
  for (const CheckpointTensor& t : tensors) {
    StoredTensor& stored = m.tensors[t.key()];
    stored.shape = global_shape(*t.parameter);
    stored.dtype = t.tensor.dtype();
  }
  for (const PlannedSlice& s : plan) {
    m.tensors[s.tensor].slices.push_back({s.shard, s.begin, s.count, s.key});
  }
  return m;
}

}  // namespace

fs::path save_checkpoint(const fs::path& directory, const std::vector<CheckpointTensor>& tensors,
                         const TrainingState& state, const std::string& config_yaml,
                         const Mesh& mesh, int64_t keep) {
  Communicator& world = *mesh.world;
  int64_t rank = world.rank(), ranks = world.size();
  fs::path final = directory / step_name(state.step);
  fs::path temporary = directory / half_written_name(state.step);
  auto plan = plan_slices(tensors, ranks, mesh.expert_parallel());
  bool made = false;
  try {
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
      std::map<std::string, const CheckpointTensor*> by_key;
      for (const CheckpointTensor& t : tensors) by_key[t.key()] = &t;
      std::vector<NamedTensor> mine;
      for (const PlannedSlice& s : plan) {
        if (s.shard != rank) continue;
        mine.push_back({s.key, local_piece(*by_key.at(s.tensor), s.begin, s.count)});
      }
      fs::path shard = temporary / shard_name(rank, ranks);
      uint64_t checksum = write_safetensors(shard, mine, {{"format", "adagate"}});
      written[0] = static_cast<int64_t>(fs::file_size(shard));
      std::memcpy(&written[1], &checksum, 8);
    });
    std::vector<int64_t> all(static_cast<size_t>(2 * ranks));
    world.all_gather(written, all.data(), 2, DType::i64);
    on_all_ranks(world, [&] {
      if (rank != 0) return;
      Manifest manifest = describe(tensors, plan, state, config_yaml, mesh);
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

// The shards hold what the manifest says and nothing else.
void check_slices(const Manifest& manifest,
                  const std::vector<std::unique_ptr<SafetensorsFile>>& shards) {
  std::set<std::pair<int64_t, std::string>> named;
  for (const auto& [key, stored] : manifest.tensors) {
    for (const SliceInfo& slice : stored.slices) {
      named.insert({slice.shard, slice.key});
      const std::string& file = manifest.shards[static_cast<size_t>(slice.shard)].file;
      const SafetensorsEntry& entry = shards[static_cast<size_t>(slice.shard)]->entry(slice.key);
      Shape shape = stored.shape;
      if (shape.rank() > 0) shape[0] = slice.count;
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

// Copies what overlaps this rank's part of a stored tensor.
void read_slices(const StoredTensor& stored, const CheckpointTensor& t,
                 const std::vector<std::unique_ptr<SafetensorsFile>>& shards) {
  const ParameterSpec& spec = t.parameter->spec();
  bool whole = spec.global_dim0 == 0;
  int64_t first = whole ? 0 : spec.shard_begin;
  int64_t last = first + (spec.shape.rank() ? spec.shape[0] : 1);
  for (const SliceInfo& slice : stored.slices) {
    int64_t begin = std::max(first, slice.begin), end = std::min(last, slice.begin + slice.count);
    if (begin >= end) continue;
    Tensor source = shards[static_cast<size_t>(slice.shard)]->read(slice.key);
    if (whole) {
      t.tensor.copy_from(source);
    } else {
      t.tensor.slice(begin - first, end - first)
          .copy_from(source.slice(begin - slice.begin, end - slice.begin));
    }
  }
}

void check_names(const Manifest& manifest, const std::vector<CheckpointTensor>& tensors,
                 const std::string& source) {
  std::set<std::string> kinds, expected;
  for (const CheckpointTensor& t : tensors) {
    kinds.insert(t.kind);
    expected.insert(t.key());
    auto it = manifest.tensors.find(t.key());
    check(it != manifest.tensors.end(), "{} has no tensor {}: {}", source, t.key(), kOtherModel);
    check(it->second.shape == global_shape(*t.parameter), "{}: {} has shape {}, the model {}: {}",
          source, t.key(), it->second.shape.str(), global_shape(*t.parameter).str(), kOtherModel);
  }
  for (auto& [key, stored] : manifest.tensors) {
    if (kinds.count(key.substr(0, key.find('/'))) == 0) continue;
    check(expected.count(key) > 0, "{} has the tensor {}, the model does not: {}", source, key,
          kOtherModel);
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

Manifest load_checkpoint(const fs::path& path, const std::vector<CheckpointTensor>& tensors,
                         const Mesh& mesh) {
  Communicator& world = *mesh.world;
  Manifest manifest;
  on_all_ranks(world, [&] {
    manifest = read_manifest(path);
    check_names(manifest, tensors, path.string());
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
    for (const CheckpointTensor& t : tensors) read_slices(manifest.tensors.at(t.key()), t, shards);
  });
  return manifest;
}

void load_weights(const fs::path& path, const std::vector<Parameter*>& parameters) {
  SafetensorsFile file(path);
  std::set<std::string> used;
  for (Parameter* p : parameters) {
    check(file.contains(p->name()), "{} has no tensor {}, which the model needs", path.string(),
          p->name());
    const SafetensorsEntry& entry = file.entry(p->name());
    check(entry.shape == global_shape(*p), "{}: {} has shape {}, the model {}", path.string(),
          p->name(), entry.shape.str(), global_shape(*p).str());
    Tensor whole = file.read(p->name());
    int64_t begin = p->spec().shard_begin;
    bool part = p->spec().global_dim0 > 0;
    p->master().copy_from(part ? whole.slice(begin, begin + p->spec().shape[0]) : whole);
    used.insert(p->name());
  }
  for (auto& [name, entry] : file.tensors()) {
    check(used.count(name) > 0, "{} has the tensor {}, which the model does not know",
          path.string(), name);
  }
}

void export_weights(const fs::path& path, const std::vector<Parameter*>& parameters,
                    const Mesh& mesh) {
  std::vector<NamedTensor> all;
  for (Parameter* p : parameters) {
    if (p->spec().global_dim0 == 0) {
      all.push_back({p->name(), p->master().detach()});
      continue;
    }
    Tensor whole = Tensor::empty(global_shape(*p), p->master().dtype());
    mesh.expert->all_gather(p->master().raw(), whole.raw(), p->numel(), p->master().dtype());
    all.push_back({p->name(), whole});
  }
  on_all_ranks(*mesh.world, [&] {
    if (mesh.world->rank() == 0) write_safetensors(path, all, {{"format", "pt"}});
  });
}

}  // namespace adagate
