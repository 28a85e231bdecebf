// What a training, an evaluation and checkpoints know of a model, whatever it computes: parameters
// and state (Module), where they lie, the work of a pass, and its MoE layers. What goes in and what
// comes out is between a model's own class and the task that makes it.
#pragma once

#include <cstdint>
#include <vector>

#include "core/nn/module.h"
#include "models/flops.h"
#include "moe/moe_config.h"
#include "moe/routing_step.h"

namespace adagate {

class Model : public Module {
 public:
  virtual Device device() const = 0;     // of the parameters
  virtual FlopCounts flops() const = 0;  // forward, by what they are counted over

  // Gates, experts and balance losses of the MoE layers, if there are any.
  virtual const MoeConfig& moe_config() const = 0;
  // The transformer block of each MoE layer, from 0; none in a dense model.
  virtual std::vector<int64_t> moe_blocks() const = 0;
  int64_t moe_layers() const { return static_cast<int64_t>(moe_blocks().size()); }

  // Ends an optimizer step whose routing is summed over all ranks: policies with a state move on.
  virtual void end_step(const RoutingStep& routing) = 0;
};

// Counts the routing of the model's MoE layers, with its balance losses; of a dense one, nothing.
RoutingStep routing_step_of(const Model& model);

// The model as the class that its task has made. Throws Error where it is another's.
template <class T>
T& model_as(Model& model) {
  auto* typed = dynamic_cast<T*>(&model);
  check(typed, "the model is none of this task's");
  return *typed;
}

}  // namespace adagate
