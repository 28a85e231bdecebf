// What generation needs of a model: the probabilities of the next token of a sequence that is fed
// piece by piece.
#pragma once

#include <cstdint>
#include <vector>

#include "layers/self_attention.h"

namespace adagate {

class AutoregressiveModel {
 public:
  virtual ~AutoregressiveModel() = default;

  virtual int64_t context() const = 0;  // most tokens of one sequence
  virtual std::vector<KvCache> make_caches() const = 0;
  // Feeds `tokens` (i32 [n]) of one sequence that continues `caches`; returns the logits
  // [1, vocabulary] of the next token. Throws Error past the context. Collective over the ranks
  // that share the model's experts.
  virtual Tensor step(const Tensor& tokens, std::vector<KvCache>& caches) = 0;
};

}  // namespace adagate
