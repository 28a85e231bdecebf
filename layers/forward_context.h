// What a forward pass knows besides its input: one per micro-batch, passed down, never looked up.
#pragma once

#include <cstdint>
#include <functional>

#include "core/nn/module.h"
#include "core/ops/dropout.h"
#include "core/tensor/tensor.h"

namespace adagate {

class RoutingStep;  // moe/routing_step.h

struct ForwardContext {
  bool training = false;  // dropout is on
  uint64_t seed = 0;
  int64_t step = 0;

  int64_t batch = 0;     // samples on this rank, possibly none
  int64_t sequence = 0;  // tokens per sample, padding included
  Tensor lengths = {};   // i32 [batch], real tokens of each sample; empty: all are full
  Tensor row_ids =
      {};  // i64 [batch * sequence], token's place in the global batch: addresses dropout
  Tensor token_mask = {};  // u8 [batch * sequence], 1 = real token; empty: all are

  bool recompute_blocks = false;  // keep only each block's input, run the block again in backward
  RoutingStep* routing =
      nullptr;  // gathers the MoE layers' plans and statistics; null in dense models

  // Called during backward when all gradients of `module`'s parameters are final.
  std::function<void(Module& module)> gradients_ready = {};

  // Dropout of one place in the model; the same draws for every layout and after a resume.
  DropoutSite dropout_site(double probability, uint64_t site) const {
    if (!training || probability == 0) return {};
    return {Rng(seed, RngStream::dropout, static_cast<uint64_t>(step), site), probability};
  }
};

}  // namespace adagate
