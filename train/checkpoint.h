// Checkpoints: a directory per step with a manifest and one safetensors shard per rank. Tensors are
// stored by global name, experts by global expert id, so that any number of ranks and any expert
// parallelism can read them back, optimizer moments included.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/nn/parameter.h"
#include "parallel/mesh.h"
#include "train/run_directory.h"

namespace adagate {

// Where the training stands after `step` optimizer steps.
struct TrainingState {
  int64_t step = 0;
  int64_t epoch = 0;
  int64_t epoch_step = 0;  // steps taken in this epoch
  int64_t consumed_samples = 0;
  int64_t consumed_tokens = 0;                    // targets
  std::map<std::string, std::string> extra = {};  // what later parts add, by name
};

// One tensor of the training state: the value of a parameter ("value") or a moment of its optimizer
// state ("adam_m", "adam_v"), in the parameter's shape on this rank.
struct CheckpointTensor {
  std::string kind;
  const Parameter* parameter = nullptr;
  Tensor tensor;

  std::string key() const { return kind + "/" + parameter->name(); }
};

struct ShardInfo {
  std::string file;
  int64_t bytes = 0;
  uint64_t checksum = 0;  // XXH3 of the file
};

struct SliceInfo {
  int64_t shard = 0;
  int64_t begin = 0, count = 0;  // of the first dimension
  std::string key;               // in the shard
};

struct StoredTensor {
  Shape shape;  // global
  DType dtype = DType::f32;
  std::vector<SliceInfo> slices;  // cover the first dimension
};

struct Manifest {
  TrainingState state;
  std::string config_yaml;  // effective configuration of the run that wrote it
  int64_t ranks = 1, expert_parallel = 1;
  std::vector<ShardInfo> shards;
  std::map<std::string, StoredTensor> tensors;  // by CheckpointTensor::key()
};

// Saves to `directory`/step-00000100 and removes all but the newest `keep` (0: keeps all).
// Collective over mesh.world. The checkpoint appears whole or not at all; on an error all ranks
// throw the same Error, what was there before is intact, nothing partial is left. Returns the new
// path.
std::filesystem::path save_checkpoint(const std::filesystem::path& directory,
                                      const std::vector<CheckpointTensor>& tensors,
                                      const TrainingState& state, const std::string& config_yaml,
                                      const Mesh& mesh, int64_t keep);

// Throws Error when `path` is no checkpoint, naming what is wrong and, if there is one, the
// complete checkpoint before it.
Manifest read_manifest(const std::filesystem::path& path);

// Fills `tensors` and verifies every shard's checksum; collective, with the errors of
// read_manifest. Every tensor asked for must be stored in the same global shape, and every stored
// tensor of the kinds asked for must be asked for.
Manifest load_checkpoint(const std::filesystem::path& path,
                         const std::vector<CheckpointTensor>& tensors, const Mesh& mesh);

// Fills parameters from one plain safetensors file by their global names; the file's and the
// model's names must be the same set.
void load_weights(const std::filesystem::path& file, const std::vector<Parameter*>& parameters);

// Writes the parameters' values to one plain safetensors file by their global names. Collective.
void export_weights(const std::filesystem::path& file, const std::vector<Parameter*>& parameters,
                    const Mesh& mesh);

}  // namespace adagate
