// Decoder-only transformer language model, dense or Mixture-of-Experts: GPT-2's form (learned
// positions, LayerNorm, GELU, tied embeddings) or the modern one (rotary, RMSNorm, SwiGLU,
// grouped-query).
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "core/ops/linear_cross_entropy.h"
#include "layers/embedding.h"
#include "layers/transformer_block.h"
#include "models/autoregressive_model.h"
#include "models/model.h"
#include "models/model_config.h"
#include "moe/gating_policy.h"
#include "parallel/mesh.h"

namespace adagate {

class MoeLayer;

// Parameters in the order of the flat buffers: embedding, blocks, final_norm, head.
class Decoder final : public Model, public AutoregressiveModel {
 public:
  // config.vocabulary must be set. `mesh` tells which experts this rank holds; it is kept.
  // `make_policy` makes the gates' policies. Throws Error on impossible sizes.
  Decoder(const ModelConfig& config, const MoeConfig& moe, const Mesh& mesh,
          const MakePolicy& make_policy = make_gating_policy);

  // tokens i32 [rows.rows] -> hidden states after the final norm [rows.rows, width]. Throws Error
  // when a sample is longer than the context of learned positions.
  Tensor forward(const Tensor& tokens, const StepContext& context, const TokenRows& rows);

  // Next-token loss over rows.rows rows. The loss is scale * sum.
  CrossEntropy loss(const Tensor& tokens, const LossTargets& targets, double scale,
                    const StepContext& context, const TokenRows& rows);

  // Logits [rows, vocabulary], f32 (f64 in f64 models), of hidden states. Inference only.
  Tensor logits(const Tensor& hidden) const;

  // One cache per block. Sequences are padded to n tokens: padding chooses no experts.
  Tensor step(const Tensor& tokens, std::vector<KvCache>& caches,
              std::span<const int32_t> lengths = {}) override;
  std::vector<KvCache> make_caches(int64_t sequences = 1) const override;
  int64_t context() const override { return config_.context; }
  int64_t vocabulary() const override { return config_.vocabulary; }

  const ModelConfig& config() const { return config_; }
  Device device() const override;
  FlopCounts flops() const override { return count_flops(config_, moe_); }
  const MoeConfig& moe_config() const override { return moe_; }
  std::vector<int64_t> moe_blocks() const override;
  void end_step(const RoutingStep& routing) override;

 private:
  std::unique_ptr<FeedForwardLayer> make_feed_forward(int64_t block, const Mesh& mesh,
                                                      const MakePolicy& make_policy);
  const Tensor& head() const;

  ModelConfig config_;
  MoeConfig moe_;
  std::unique_ptr<Embedding> embedding_;
  std::vector<std::unique_ptr<TransformerBlock>> blocks_;
  std::vector<MoeLayer*> moe_layers_;  // in blocks_
  std::unique_ptr<Norm> final_norm_;
  std::unique_ptr<Parameter> head_;  // [vocabulary, width]; null when tied
};

}  // namespace adagate
