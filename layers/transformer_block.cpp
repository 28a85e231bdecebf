#include "layers/transformer_block.h"

namespace adagate {
namespace {

SelfAttentionConfig placed(SelfAttentionConfig config, uint64_t site) {
  config.site = site;
  return config;
}

}  // namespace

TransformerBlock::TransformerBlock(const TransformerBlockConfig& config, std::string slot_name,
                                   std::unique_ptr<FeedForwardLayer> feed_forward)
    : config_(config),
      attention_norm_(config.norm, config.attention.width, config.norm_epsilon),
      attention_(placed(config.attention, config.site)),
      feed_forward_norm_(config.norm, config.attention.width, config.norm_epsilon),
      feed_forward_(std::move(feed_forward)) {
  add("attention_norm", attention_norm_);
  add("attention", attention_);
  add("feed_forward_norm", feed_forward_norm_);
  add(std::move(slot_name), *feed_forward_);
}

Tensor TransformerBlock::forward(const Tensor& x, const StepContext& context,
                                 const TokenRows& rows) {
  return finish(x, attention_.forward(attention_norm_.forward(x), context, rows), context, rows);
}

Tensor TransformerBlock::step(const Tensor& x, const StepContext& context, const TokenRows& rows,
                              KvCache& cache) {
  return finish(x, attention_.step(attention_norm_.forward(x), rows, cache), context, rows);
}

Tensor TransformerBlock::finish(const Tensor& x, const PendingBias& attended,
                                const StepContext& context, const TokenRows& rows) {
  auto dropout = [&](uint64_t branch) {
    return context.dropout_site(config_.dropout, config_.site + branch);
  };
  Tensor middle = bias_dropout_add(attended.product, attended.bias, x, dropout(1), rows.addresses);
  Tensor y = feed_forward_->forward(feed_forward_norm_.forward(middle), context, rows);
  return bias_dropout_add(y, Tensor(), middle, dropout(2), rows.addresses);
}

}  // namespace adagate
