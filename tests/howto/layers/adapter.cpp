#include "layers/adapter.h"

namespace adagate {

Adapter::Adapter(const AdapterConfig& config)
    : norm_(NormKind::layer_norm, config.width, config.norm_epsilon),
      down_({config.width, config.bottleneck, true, config.initial_stddev}),
      up_({config.bottleneck, config.width, true, config.initial_stddev}) {
  check(config.bottleneck >= 1 && config.bottleneck < config.width,
        "adapter: a bottleneck of {} in a width of {}; choose 1 to {}", config.bottleneck,
        config.width, config.width - 1);
  add("norm", norm_);
  add("down", down_);
  add("up", up_);
}

Tensor Adapter::forward(const Tensor& x) const {
  auto [narrow, bias] = down_.product(norm_.forward(x));            // [tokens, bottleneck]
  Tensor active = bias_activation(narrow, bias, Activation::gelu);  // [tokens, bottleneck]
  return adagate::add(x, up_.forward(active));                      // [tokens, width]
}

}  // namespace adagate
