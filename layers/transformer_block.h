// Pre-norm transformer block: x + attention(norm(x)), then x + feed_forward(norm(x)).
#pragma once

#include <memory>

#include "layers/feed_forward.h"
#include "layers/norm.h"
#include "layers/self_attention.h"

namespace adagate {

struct TransformerBlockConfig {
  SelfAttentionConfig attention;
  NormKind norm = NormKind::layer_norm;
  double norm_epsilon = 1e-5;
  double dropout = 0;  // of both residual branches
  uint64_t site = 0;   // this block's place in the randomness; it uses site .. site + 2
};

// `feed_forward` fills the slot under the name `slot_name`: "feed_forward" or "moe".
class TransformerBlock : public Module {
 public:
  TransformerBlock(const TransformerBlockConfig& config, std::string slot_name,
                   std::unique_ptr<FeedForwardLayer> feed_forward);

  // x [rows.rows, width] -> the same shape
  Tensor forward(const Tensor& x, const StepContext& context, const TokenRows& rows);

  // The same for new rows of sequences with cached keys and values; inference only.
  Tensor step(const Tensor& x, const StepContext& context, const TokenRows& rows, KvCache& cache);

  FeedForwardLayer& feed_forward() { return *feed_forward_; }

 private:
  Tensor finish(const Tensor& x, const PendingBias& attended, const StepContext& context,
                const TokenRows& rows);

  TransformerBlockConfig config_;
  Norm attention_norm_;
  SelfAttention attention_;
  Norm feed_forward_norm_;
  std::unique_ptr<FeedForwardLayer> feed_forward_;
};

}  // namespace adagate
