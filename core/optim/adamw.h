// AdamW over the flat buffers of a ParameterStore.
#pragma once

#include <cstdint>
#include <vector>

#include "core/nn/parameter_store.h"
#include "core/ops/adamw_update.h"
#include "core/optim/optimizer_config.h"

namespace adagate {

// Moments have the master's type. The store must outlive the optimizer.
class AdamW {
 public:
  AdamW(ParameterStore& store, const OptimizerConfig& config);

  // One update with the gradients times `gradient_factor` (clipping); refreshes the compute copies.
  void step(double learning_rate, double gradient_factor);

  // Updates so far; the bias correction follows them.
  int64_t steps() const { return steps_; }
  void set_steps(int64_t steps) { steps_ = steps; }

  // State of one parameter, in its shape.
  Tensor first_moment(const Parameter& parameter) const;
  Tensor second_moment(const Parameter& parameter) const;

  // Both moments of every parameter: "adam_m/" and "adam_v/" before its name.
  std::vector<StateTensor> states() const;

 private:
  struct Segment {  // neighbouring parameters with the same decay
    FlatRange range;
    bool decay;
  };
  struct Group {
    Tensor m, v;  // [n]
    std::vector<Segment> segments;
  };

  ParameterStore& store_;
  OptimizerConfig config_;
  PerGroup<Group> groups_;
  int64_t steps_ = 0;
};

}  // namespace adagate
