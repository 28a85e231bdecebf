// Token embedding, plus learned positions where the model has them.
#pragma once

#include "core/nn/module.h"
#include "core/ops/embedding.h"
#include "layers/token_rows.h"

namespace adagate {

struct EmbeddingConfig {
  int64_t vocabulary = 0, width = 0;
  int64_t positions = 0;  // rows of the position table; 0: none
  double initial_stddev = 0.02;
};

// Parameters: tokens [vocabulary, width], positions [positions, width].
class Embedding : public Module {
 public:
  explicit Embedding(const EmbeddingConfig& config)
      : tokens_({.shape = {config.vocabulary, config.width},
                 .init = Init::normal(config.initial_stddev)}),
        positions_({.shape = {config.positions, config.width},
                    .init = Init::normal(config.initial_stddev)}),
        has_positions_(config.positions > 0) {
    add("tokens", tokens_);
    if (has_positions_) add("positions", positions_);
  }

  // tokens i32 [rows.rows] -> [rows.rows, width]
  Tensor forward(const Tensor& tokens, const TokenRows& rows) const {
    if (!has_positions_) return embedding(tokens, tokens_.tensor(), Tensor(), Tensor());
    check(rows.start + rows.sequence <= positions_.spec().shape[0],
          "{} tokens are more than model.context, {}: the model has learned no positions for them",
          rows.start + rows.sequence, positions_.spec().shape[0]);
    return embedding(tokens, tokens_.tensor(), rows.positions, positions_.tensor());
  }

  const Tensor& table() const { return tokens_.tensor(); }

 private:
  Parameter tokens_, positions_;
  bool has_positions_;
};

}  // namespace adagate
