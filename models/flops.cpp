#include "models/flops.h"

namespace adagate {
namespace {

int64_t expert_width(const ModelConfig& model, const MoeConfig& moe) {
  return moe.expert_feed_forward > 0 ? moe.expert_feed_forward : model.feed_forward_width();
}

// Weights of one feed-forward without biases.
int64_t feed_forward_weights(const ModelConfig& model, int64_t hidden) {
  return model.width * hidden * (model.gated() ? 3 : 2);
}

int64_t attention_weights(const ModelConfig& m) {
  int64_t qkv = (m.heads + 2 * m.key_value_heads()) * m.head_size();
  return m.width * qkv + m.heads * m.head_size() * m.width;
}

}  // namespace

FlopCounts count_flops(const ModelConfig& m, const MoeConfig& moe) {
  int64_t sparse = moe.moe_layers(m.layers), dense = m.layers - sparse;
  int64_t weights = m.layers * attention_weights(m) +
                    dense * feed_forward_weights(m, m.feed_forward_width()) +
                    sparse * m.width * moe.experts + m.width * m.vocabulary;
  FlopCounts counts;
  counts.per_token = 2.0 * static_cast<double>(weights);
  counts.per_token_pair = 4.0 * static_cast<double>(m.layers * m.heads * m.head_size());
  counts.per_assignment = 2.0 * static_cast<double>(feed_forward_weights(m, expert_width(m, moe)));
  return counts;
}

double training_flops(const FlopCounts& counts, int64_t tokens, int64_t visible_pairs,
                      int64_t assignments) {
  return 3.0 * (counts.per_token * static_cast<double>(tokens) +
                counts.per_token_pair * static_cast<double>(visible_pairs) +
                counts.per_assignment * static_cast<double>(assignments));
}

}  // namespace adagate
