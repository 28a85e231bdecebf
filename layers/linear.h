// y = x W + b.
#pragma once

#include "core/nn/module.h"
#include "core/ops/linear.h"

namespace adagate {

// A product whose bias, if any, is still to be added: by the caller, who fuses it with its next
// pass.
struct PendingBias {
  Tensor product, bias;
};

struct LinearConfig {
  int64_t in = 0, out = 0;
  bool bias = true;
  double initial_stddev = 0.02;
};

// Parameters: weight [in, out], bias [out].
class Linear : public Module {
 public:
  explicit Linear(const LinearConfig& config)
      : weight_({.shape = {config.in, config.out}, .init = Init::normal(config.initial_stddev)}),
        bias_({.shape = {config.bias ? config.out : 0}, .init = Init::zeros(), .decay = false}),
        has_bias_(config.bias) {
    add("weight", weight_);
    if (has_bias_) add("bias", bias_);
  }

  // x [.., in] -> [.., out]
  Tensor forward(const Tensor& x) const { return linear(x, weight_.tensor(), bias()); }

  PendingBias product(const Tensor& x) const { return {linear(x, weight_.tensor()), bias()}; }
  Tensor bias() const { return has_bias_ ? bias_.tensor() : Tensor(); }

 private:
  Parameter weight_, bias_;
  bool has_bias_;
};

}  // namespace adagate
