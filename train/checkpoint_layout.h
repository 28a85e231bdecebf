// Which rank writes which slice, and the manifest's JSON form. Used by checkpoint.cpp.
#pragma once

#include <string>
#include <vector>

#include "train/checkpoint.h"
#include "train/run_directory.h"

namespace adagate {

// Shape over all ranks of a tensor shaped like `parameter`.
Shape global_shape(const Parameter& parameter);

struct PlannedSlice {
  std::string tensor;  // CheckpointTensor::key()
  std::string key;     // in the shard
  int64_t shard = 0;   // rank that writes it
  int64_t begin = 0, count = 0;
};

// The same on every rank: dense tensors go to the rank with the fewest bytes so far, the experts of
// a slice to one of the replicas that hold them.
std::vector<PlannedSlice> plan_slices(const std::vector<CheckpointTensor>& tensors, int64_t ranks,
                                      int64_t expert_parallel);

std::string manifest_to_json(const Manifest& manifest);
// `source` names the file in errors.
Manifest manifest_from_json(const std::string& text, const std::string& source);

}  // namespace adagate
