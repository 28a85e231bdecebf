// The experts of one rank: feed-forward networks of one shape over rows sorted by expert.
#pragma once

#include "core/nn/module.h"
#include "core/ops/activation_math.h"
#include "core/ops/group_offsets.h"

namespace adagate {

struct ExpertsConfig {
  int64_t width = 0, hidden = 0;
  int64_t experts = 0;           // of the layer
  int64_t first = 0, local = 0;  // this rank holds experts [first, first + local)
  Activation activation = Activation::gelu;
  bool bias = true;
  double initial_stddev = 0.02;         // of `up`
  double output_initial_stddev = 0.02;  // of `down`
};

// FFN_e(x) = act(x W_up[e] + b_up[e]) W_down[e] + b_down[e]; for swiglu W_up[e] is
// [width, 2 hidden], the gate half first. Parameters: up.weight [local, width, hidden or 2 hidden],
// up.bias [local, hidden or 2 hidden], down.weight [local, hidden, width], down.bias [local,
// width].
class Experts : public Module {
 public:
  explicit Experts(const ExpertsConfig& config);

  // rows [n, width] sorted by expert, offsets of the local ones -> [n, width]
  Tensor forward(const Tensor& rows, const GroupOffsets& offsets) const;

  // Of one row, forward.
  double flops_per_row() const;

 private:
  int64_t up_columns() const {
    return config_.activation == Activation::swiglu ? 2 * config_.hidden : config_.hidden;
  }
  ParameterSpec spec(Shape shape, Init init, bool decay) const;

  ExpertsConfig config_;
  Parameter up_weight_, up_bias_, down_weight_, down_bias_;
};

}  // namespace adagate
