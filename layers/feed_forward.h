// The feed-forward slot of a transformer block, and its dense form.
#pragma once

#include "core/ops/bias_activation.h"
#include "layers/linear.h"
#include "layers/step_context.h"
#include "layers/token_rows.h"

namespace adagate {

// What fills the slot: the dense feed-forward below, or moe/moe_layer.h.
class FeedForwardLayer : public Module {
 public:
  // x [tokens, width] -> [tokens, width]
  virtual Tensor forward(const Tensor& x, const StepContext& context, const TokenRows& rows) = 0;
};

struct FeedForwardConfig {
  int64_t width = 0, hidden = 0;
  Activation activation = Activation::gelu;
  bool bias = true;
  double initial_stddev = 0.02;         // of `up`
  double output_initial_stddev = 0.02;  // of `down`
};

// y = act(x W_up + b_up) W_down + b_down; for swiglu W_up is [width, 2 hidden], gate half first.
class FeedForward final : public FeedForwardLayer {
 public:
  explicit FeedForward(const FeedForwardConfig& config)
      : activation_(config.activation),
        up_({config.width,
             config.activation == Activation::swiglu ? 2 * config.hidden : config.hidden,
             config.bias, config.initial_stddev}),
        down_({config.hidden, config.width, config.bias, config.output_initial_stddev}) {
    add("up", up_);
    add("down", down_);
  }

  Tensor forward(const Tensor& x, const StepContext&, const TokenRows&) override {
    auto [product, bias] = up_.product(x);  // [tokens, hidden or 2 hidden]
    return down_.forward(bias_activation(product, bias, activation_));
  }

 private:
  Activation activation_;
  Linear up_, down_;
};

}  // namespace adagate
