#include "moe/experts.h"

#include "core/ops/bias_activation.h"
#include "core/ops/grouped_linear.h"

namespace adagate {

Experts::Experts(const ExpertsConfig& config)
    : config_(config),
      up_weight_(spec({config.local, config.width, up_columns()},
                      Init::normal(config.initial_stddev), true)),
      up_bias_(spec({config.local, up_columns()}, Init::zeros(), false)),
      down_weight_(spec({config.local, config.hidden, config.width},
                        Init::normal(config.output_initial_stddev), true)),
      down_bias_(spec({config.local, config.width}, Init::zeros(), false)) {
  add("up.weight", up_weight_);
  if (config.bias) add("up.bias", up_bias_);
  add("down.weight", down_weight_);
  if (config.bias) add("down.bias", down_bias_);
}

ParameterSpec Experts::spec(Shape shape, Init init, bool decay) const {
  return {.shape = shape,
          .init = init,
          .decay = decay,
          .group = ParameterGroup::expert,
          .shard = {.dim = 0, .begin = config_.first, .global = config_.experts}};
}

Tensor Experts::forward(const Tensor& rows, const GroupOffsets& offsets) const {
  auto bias = [&](const Parameter& p) { return config_.bias ? p.tensor() : Tensor(); };
  Tensor hidden = grouped_linear(rows, up_weight_.tensor(), offsets);  // [n, hidden or 2 hidden]
  Tensor active = bias_activation(hidden, bias(up_bias_), offsets, config_.activation);
  return grouped_linear(active, down_weight_.tensor(), offsets, bias(down_bias_));
}

double Experts::flops_per_row() const {
  return 2.0 * static_cast<double>(config_.width) *
         static_cast<double>(up_columns() + config_.hidden);
}

}  // namespace adagate
