// What a forward pass knows of its step: one for all micro-batches of it or one for each, passed
// down, never looked up. Where the micro-batch's tokens are: layers/token_rows.h.
#pragma once

#include <cstdint>
#include <functional>

#include "core/nn/module.h"
#include "core/ops/dropout.h"
#include "layers/routing_sink.h"

namespace adagate {

// It must outlive the backward pass.
struct StepContext {
  bool training = false;  // dropout is on
  uint64_t seed = 0;
  int64_t step = 0;

  bool recompute_blocks = false;   // keep only each block's input, run the block again in backward
  RoutingSink* routing = nullptr;  // where layers that choose experts tell of it; null: nowhere

  // Called during backward when all gradients of `module`'s parameters are final.
  std::function<void(Module& module)> gradients_ready = {};

  // Dropout of one place in the model; the same draws for every layout and after a resume.
  DropoutSite dropout_site(double probability, uint64_t site) const {
    if (!training || probability == 0) return {};
    return {Rng(seed, RngStream::dropout, static_cast<uint64_t>(step), site), probability};
  }
};

}  // namespace adagate
