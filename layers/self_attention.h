// Multi-head self-attention with grouped-query heads, causal or not, rotary or not.
#pragma once

#include "core/ops/kv_cache.h"
#include "layers/linear.h"
#include "layers/step_context.h"
#include "layers/token_rows.h"

namespace adagate {

struct SelfAttentionConfig {
  int64_t width = 0, heads = 0, kv_heads = 0;
  bool causal = true;
  double rotary_base = 0;  // 0: no rotary positions
  double dropout = 0;      // of the attention probabilities
  bool bias = true;
  double initial_stddev = 0.02;
  double output_initial_stddev = 0.02;
  uint64_t site = 0;  // this layer's place in the randomness
};

// Parameters: qkv.weight [width, (heads + 2 kv_heads) * head_dim], output.weight [width, width].
class SelfAttention : public Module {
 public:
  explicit SelfAttention(const SelfAttentionConfig& config)
      : config_(config),
        head_dim_(config.width / config.heads),
        qkv_({config.width, (config.heads + 2 * config.kv_heads) * head_dim_, config.bias,
              config.initial_stddev}),
        output_(
            {config.heads * head_dim_, config.width, config.bias, config.output_initial_stddev}) {
    add("qkv", qkv_);
    add("output", output_);
  }

  // x [rows.rows, width] -> the same shape. Throws Error on packed samples.
  PendingBias forward(const Tensor& x, const StepContext& context, const TokenRows& rows) const {
    check(!rows.packed(),
          "self-attention: {} samples in {} packed rows; it works on padded samples only, as "
          "padded_rows() describes them",
          rows.samples, rows.rows);
    drop_key_bias_gradient();
    Tensor mixed = attention(qkv_.forward(x), shape(rows.samples, rows.sequence), rows.lengths,
                             context.dropout_site(config_.dropout, config_.site), rows.addresses);
    return output_.product(mixed);
  }

  // New rows of the cache's sequences, padded or full, against the keys and values seen so far,
  // which `cache` takes up. x [rows.rows, width]; inference only.
  PendingBias step(const Tensor& x, const TokenRows& rows, KvCache& cache) const {
    Tensor mixed =
        attention_step(qkv_.forward(x), shape(rows.samples, rows.sequence), cache, rows.lengths);
    return output_.product(mixed);
  }

 private:
  AttentionShape shape(int64_t batch, int64_t sequence) const {
    return {.batch = batch,
            .sequence = sequence,
            .heads = config_.heads,
            .kv_heads = config_.kv_heads,
            .head_dim = head_dim_,
            .causal = config_.causal,
            .rotary_base = config_.rotary_base};
  }

  // Without rotary positions the keys' bias adds the same to all scores of a query, which the
  // softmax does not see: its gradient is zero. What the backward pass makes of it is round-off
  // alone, which AdamW would blow up to steps of full size and of another sign on every layout.
  void drop_key_bias_gradient() const {
    Tensor bias = qkv_.bias();
    if (config_.rotary_base != 0 || !tape_needs({&bias})) return;
    int64_t begin = config_.heads * head_dim_, end = begin + config_.kv_heads * head_dim_;
    // Recorded before the projection, so run after it has written the gradient.
    on_backward([slot = bias.slot(), begin, end] {
      if (slot->filled()) slot->value().slice(begin, end).fill(0);
    });
  }

  SelfAttentionConfig config_;
  int64_t head_dim_;
  Linear qkv_, output_;
};

}  // namespace adagate
