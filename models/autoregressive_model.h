// What generation needs of a model: the probabilities of the next token of sequences that are
// fed piece by piece.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "layers/self_attention.h"

namespace adagate {

class AutoregressiveModel {
 public:
  virtual ~AutoregressiveModel() = default;

  virtual int64_t context() const = 0;     // most tokens of one sequence
  virtual int64_t vocabulary() const = 0;  // ids are below it
  virtual std::vector<KvCache> make_caches(int64_t sequences = 1) const = 0;
  // Feeds `tokens` (i32 [sequences, n]) that continue the sequences of `caches`; returns the logits
  // [sequences, vocabulary] of each one's next token. Of sequence i only the first lengths[i], at
  // least one, are real; empty: all of them. Throws Error where a sequence that has taken all of
  // every step would pass the context. Collective over the ranks that share the model's experts.
  virtual Tensor step(const Tensor& tokens, std::vector<KvCache>& caches,
                      std::span<const int32_t> lengths = {}) = 0;
};

}  // namespace adagate
