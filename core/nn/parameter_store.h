// Flat buffers behind a model's parameters: per group one buffer each for master values, gradients
// and (in mixed precision) compute copies, so that the optimizer is one pass, the gradient
// reduction works on contiguous buckets, and checkpoints read straight from them.
#pragma once

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "core/nn/module.h"

namespace adagate {

// Contiguous elements [begin, end) of a group's flat buffers.
struct FlatRange {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
};

struct FlatGroup {
  Tensor master;                       // [n] f32 or f64
  Tensor grad;                         // [n] as master
  Tensor compute;                      // [n] bf16; empty when compute precision is master precision
  std::vector<Parameter*> parameters;  // by offset
  int64_t size() const { return master ? master.numel() : 0; }
};

struct StoreOptions {
  DType master = DType::f32;   // f64 for gradient checks
  DType compute = DType::f32;  // f32, bf16, or f64 with an f64 master
  Device device = {};          // of all buffers
  // Memory of `device` for a group's gradients (the communicator's, shared between ranks); null:
  // ordinary memory.
  std::function<std::shared_ptr<void>(ParameterGroup, size_t bytes)> allocate_grad = {};
};

class ParameterStore {
 public:
  // Names, lays out and allocates every parameter of `model`; values are undefined until
  // initialize() or a checkpoint fills them. Throws Error on a repeated name, or a shard that is no
  // part of its parameter.
  ParameterStore(Module& model, StoreOptions options);

  // Fills the master values by their Init, each element by its global name and index, so that the
  // result is the same for every layout; then refreshes the compute copies.
  void initialize(uint64_t seed);

  FlatGroup& group(ParameterGroup g) { return groups_[g]; }
  const std::vector<Parameter*>& parameters() const { return all_; }  // in registration order
  Parameter* find(const std::string& name) const;                     // null when absent
  const StoreOptions& options() const { return options_; }

  // Where `module`'s parameters of group g lie; empty range when it has none.
  FlatRange range_of(Module& module, ParameterGroup g) const;

  // New step: the next gradient contribution overwrites.
  void clear_gradients();
  // After backward: parameters that no gradient reached count as zero.
  void zero_untouched_gradients();
  // Compute copies from master values (the optimizer does this in its own pass).
  void refresh_compute();

 private:
  StoreOptions options_;
  PerGroup<FlatGroup> groups_;
  std::vector<Parameter*> all_;
};

}  // namespace adagate
