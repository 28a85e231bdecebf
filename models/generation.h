// Text from a model, token by token.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "models/autoregressive_model.h"

namespace adagate {

struct SamplingOptions {
  int64_t tokens = 100;      // at most so many new ones
  double temperature = 0.8;  // 0: always the most probable token
  int64_t top_k = 0;         // draw among the k most probable; 0: all
  double top_p = 1.0;        // draw among the fewest tokens whose probabilities reach p
  uint64_t seed = 1;
  int32_t stop_token = -1;          // ends the text; -1: none
  std::vector<int32_t> never = {};  // ids that no sampler draws, see ids_without_token()
};

// Draws one token from logits [vocabulary]; `position` addresses the draw. Throws Error on options
// outside their range or logits that are not finite.
int32_t sample_token(std::vector<float> logits, const SamplingOptions& options, uint64_t position);

// Continues `prompt`; on_token is called for each new token. When the context is full the older
// half of it is forgotten. Collective over the ranks that share the model's experts. Returns the
// new tokens, without the stop token.
std::vector<int32_t> generate(AutoregressiveModel& model, const std::vector<int32_t>& prompt,
                              const SamplingOptions& options,
                              const std::function<void(int32_t)>& on_token = {});

}  // namespace adagate
