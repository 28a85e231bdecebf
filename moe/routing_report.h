// A readable table of where tokens went, layer by layer, over one or more steps.
#pragma once

#include <string>
#include <vector>

#include "moe/routing_step.h"

namespace adagate {

class RoutingReport {
 public:
  // Adds a finished step (after end()).
  void add(const RoutingStep& step);
  void clear() { layers_.clear(), steps_ = 0; }
  int64_t steps() const { return steps_; }

  // Sums over the steps added; losses are sums too.
  const std::vector<LayerRouting>& layers() const { return layers_; }

  // One line per MoE layer, under the number of its block: share of the tokens by number of
  // experts, load of the experts relative to an even one (least, most), mean entropy of the gate
  // beside the largest there can be, MiB sent per step.
  std::string table() const;

 private:
  std::vector<LayerRouting> layers_;
  int64_t steps_ = 0;
};

}  // namespace adagate
