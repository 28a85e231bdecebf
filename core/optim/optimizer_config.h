// Settings of the optimizer (YAML section train.optimizer).
#pragma once

#include <string>

#include "core/base/fields.h"

namespace adagate {

struct OptimizerConfig {
  std::string name = "adamw";
  double learning_rate = 3e-4;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.1;
  double clip_norm = 1.0;  // 0: no clipping

  template <class V, class Self>
  static void visit(V& v, Self& s) {
    v.field("name", s.name, "update rule", one_of({"adamw"}));
    v.field("learning_rate", s.learning_rate,
            "peak learning rate, reached at the end of the warm-up", at_least(0.0));
    v.field("beta1", s.beta1, "decay of the running mean of the gradient", between(0.0, 1.0));
    v.field("beta2", s.beta2, "decay of the running mean of the squared gradient",
            between(0.0, 1.0));
    v.field("epsilon", s.epsilon, "added to the root of the squared-gradient mean",
            greater_than(0.0));
    v.field(
        "weight_decay", s.weight_decay,
        "decoupled decay per step, times the learning rate; matrices only, not biases and norms",
        at_least(0.0));
    v.field("clip_norm", s.clip_norm,
            "largest global gradient norm, over all ranks and experts; 0 switches clipping off",
            at_least(0.0));
  }
};

}  // namespace adagate
