// Normalisation of each token's vector: LayerNorm (Ba et al. 2016) or RMSNorm (Zhang & Sennrich
// 2019).
#pragma once

#include "core/nn/module.h"
#include "core/ops/norm.h"

namespace adagate {

enum class NormKind : uint8_t { layer_norm, rms_norm };

// Parameters, kept and applied in fp32: gamma [width], and beta [width] for LayerNorm.
class Norm : public Module {
 public:
  Norm(NormKind kind, int64_t width, double epsilon)
      : kind_(kind),
        epsilon_(epsilon),
        gamma_({.shape = {width}, .init = Init::ones(), .decay = false, .full_precision = true}),
        beta_({.shape = {width}, .init = Init::zeros(), .decay = false, .full_precision = true}) {
    add("gamma", gamma_);
    if (kind == NormKind::layer_norm) add("beta", beta_);
  }

  // x [.., width] -> the same shape
  Tensor forward(const Tensor& x) const {
    return kind_ == NormKind::layer_norm ? layer_norm(x, gamma_.tensor(), beta_.tensor(), epsilon_)
                                         : rms_norm(x, gamma_.tensor(), epsilon_);
  }

 private:
  NormKind kind_;
  double epsilon_;
  Parameter gamma_, beta_;
};

}  // namespace adagate
