// What a checkpoint says of itself: where its run stood, and where which tensor lies.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/nn/state.h"

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

struct ShardInfo {
  std::string file;
  int64_t bytes = 0;
  uint64_t checksum = 0;  // XXH3 of the file
};

struct SliceInfo {
  int64_t shard = 0;
  int64_t begin = 0, count = 0;  // entries of the dimension that is cut
  std::string key;               // in the shard
};

struct StoredTensor {
  Shape shape;  // global
  DType dtype = DType::f32;
  std::vector<SliceInfo> slices;  // cover the dimension that is cut
  int cut = 0;                    // that dimension, or Shard::kElements
};

struct Manifest {
  TrainingState state;
  std::string config_yaml;  // effective configuration of the run that wrote it
  int64_t ranks = 1, expert_parallel = 1;
  std::vector<ShardInfo> shards;
  std::map<std::string, StoredTensor> tensors;  // by StateTensor::name
};

std::string manifest_to_json(const Manifest& manifest);
// `source` names the file in errors.
Manifest manifest_from_json(const std::string& text, const std::string& source);

}  // namespace adagate
