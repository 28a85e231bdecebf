// AdamW over the flat buffers of a ParameterStore.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/nn/parameter_store.h"
#include "core/ops/adamw_update.h"
#include "core/optim/optimizer_config.h"

namespace adagate {

// Elements of each group's flat buffers, in ascending ranges that don't overlap.
using OwnedRanges = PerGroup<std::vector<FlatRange>>;

// Moments have the master's type. The store must outlive the optimizer.
class AdamW {
 public:
  // Owns all elements.
  AdamW(ParameterStore& store, const OptimizerConfig& config);
  // Has moments of the owned elements alone, and leaves all others as they are: where the copies of
  // a group share its elements, each needs its own elements' summed gradient before the step, and
  // after it the others' master values and a refresh_compute(). Throws Error on other ranges than
  // described.
  AdamW(ParameterStore& store, const OptimizerConfig& config, const OwnedRanges& owned);

  // One update with the gradients times `gradient_factor` (clipping); refreshes the compute copies.
  // An element's result does not depend on what else is owned.
  void step(double learning_rate, double gradient_factor);

  // Updates so far; the bias correction follows them.
  int64_t steps() const { return steps_; }
  void set_steps(int64_t steps) { steps_ = steps; }

  // State of one parameter, in its shape. Throws Error where it is not owned as a whole.
  Tensor first_moment(const Parameter& parameter) const;
  Tensor second_moment(const Parameter& parameter) const;

  // Both moments of every parameter, "adam_m/" and "adam_v/" before its name: in its shape, or
  // where this optimizer was told what it owns, that range of its elements. Throws Error where that
  // is more than one range of a parameter.
  std::vector<StateTensor> states() const;

 private:
  struct Owned {
    FlatRange range;
    int64_t moment;  // where its first element's moments lie
  };
  struct Segment {  // neighbouring owned elements with the same decay
    Owned owned;
    bool decay;
  };
  struct Group {
    Tensor m, v;  // [owned elements]
    std::vector<Owned> owned;
    std::vector<Segment> segments;
  };
  Tensor moment(Tensor Group::*which, const Parameter& parameter) const;
  StateTensor state(const char* kind, Tensor Group::*which, const Parameter& parameter) const;

  ParameterStore& store_;
  OptimizerConfig config_;
  PerGroup<Group> groups_;
  bool owns_all_ = false;
  int64_t steps_ = 0;
};

}  // namespace adagate
