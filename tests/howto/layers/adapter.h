// Bottleneck adapter (Houlsby et al. 2019): a small correction added to the residual stream.
#pragma once

#include "core/nn/module.h"
#include "core/ops/bias_activation.h"
#include "core/ops/elementwise.h"
#include "layers/linear.h"
#include "layers/norm.h"

namespace adagate {

struct AdapterConfig {
  int64_t width = 0;
  int64_t bottleneck = 0;
  double norm_epsilon = 1e-5;
  double initial_stddev = 0.02;
};

// y = x + act(norm(x) W_down + b_down) W_up + b_up.
// Parameters: norm.gamma, norm.beta, down.weight [width, bottleneck], down.bias, up.weight
// [bottleneck, width], up.bias.
class Adapter : public Module {
 public:
  // Throws Error when the bottleneck is none.
  explicit Adapter(const AdapterConfig& config);

  // x [tokens, width] -> the same shape
  Tensor forward(const Tensor& x) const;

 private:
  Norm norm_;
  Linear down_, up_;
};

}  // namespace adagate
