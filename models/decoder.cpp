#include "models/decoder.h"

#include <cmath>

#include "core/ops/permute.h"
#include "moe/moe_layer.h"

namespace adagate {
namespace {

// Places of the model in the randomness of one step: the embedding has 0, block i starts at 16 (i +
// 1).
constexpr uint64_t kEmbeddingSite = 0;
uint64_t block_site(int64_t block) {
  return 16 * static_cast<uint64_t>(block + 1);
}

NormKind norm_kind(const std::string& name) {
  return name == "rms_norm" ? NormKind::rms_norm : NormKind::layer_norm;
}

// Branches that end in the residual stream start smaller, so that its variance doesn't grow with
// depth (GPT-2, section 2.3).
double residual_stddev(const ModelConfig& config) {
  return config.initializer_range / std::sqrt(2.0 * static_cast<double>(config.layers));
}

}  // namespace

Decoder::Decoder(const ModelConfig& config, const MoeConfig& moe, const Mesh& mesh,
                 const MakePolicy& make_policy)
    : config_(config), moe_(moe) {
  check(config.vocabulary > 0, "model.vocabulary is not set and there is no tokenizer to tell it");
  check(config.width % config.heads == 0, "model.width {} is not a multiple of model.heads {}",
        config.width, config.heads);
  bool learned = config.positions == "learned";
  double stddev = config.initializer_range;

  embedding_ = std::make_unique<Embedding>(
      EmbeddingConfig{config.vocabulary, config.width, learned ? config.context : 0, stddev});
  add("embedding", *embedding_);
  for (int64_t i = 0; i < config.layers; ++i) {
    TransformerBlockConfig block{.attention = {.width = config.width,
                                               .heads = config.heads,
                                               .kv_heads = config.key_value_heads(),
                                               .rotary_base = learned ? 0.0 : config.rotary_base,
                                               .dropout = config.attention_dropout,
                                               .bias = config.bias,
                                               .initial_stddev = stddev,
                                               .output_initial_stddev = residual_stddev(config)},
                                 .norm = norm_kind(config.norm),
                                 .norm_epsilon = config.norm_epsilon,
                                 .dropout = config.dropout,
                                 .site = block_site(i)};
    blocks_.push_back(
        std::make_unique<TransformerBlock>(block, moe.is_moe_layer(i) ? "moe" : "feed_forward",
                                           make_feed_forward(i, mesh, make_policy)));
    add(fmt::format("blocks.{}", i), *blocks_.back());
  }
  final_norm_ = std::make_unique<Norm>(norm_kind(config.norm), config.width, config.norm_epsilon);
  add("final_norm", *final_norm_);
  if (!config.tie_embeddings) {
    head_ = std::make_unique<Parameter>(
        ParameterSpec{.shape = {config.vocabulary, config.width}, .init = Init::normal(stddev)});
    add("head.weight", *head_);
  }
}

std::unique_ptr<FeedForwardLayer> Decoder::make_feed_forward(int64_t block, const Mesh& mesh,
                                                             const MakePolicy& make_policy) {
  double stddev = config_.initializer_range;
  double output_stddev = residual_stddev(config_);
  Activation activation = activation_of(config_.activation);
  if (!moe_.is_moe_layer(block)) {
    return std::make_unique<FeedForward>(FeedForwardConfig{.width = config_.width,
                                                           .hidden = config_.feed_forward_width(),
                                                           .activation = activation,
                                                           .bias = config_.bias,
                                                           .initial_stddev = stddev,
                                                           .output_initial_stddev = output_stddev});
  }
  int64_t hidden =
      moe_.expert_feed_forward > 0 ? moe_.expert_feed_forward : config_.feed_forward_width();
  auto layer =
      std::make_unique<MoeLayer>(MoeLayerConfig{.width = config_.width,
                                                .hidden = hidden,
                                                .activation = activation,
                                                .bias = config_.bias,
                                                .initial_stddev = stddev,
                                                .output_initial_stddev = output_stddev,
                                                .layer = static_cast<int64_t>(moe_layers_.size()),
                                                .moe = moe_,
                                                .make_policy = make_policy},
                                 mesh);
  moe_layers_.push_back(layer.get());
  return layer;
}

Tensor Decoder::forward(const Tensor& tokens, const StepContext& context, const TokenRows& rows) {
  check(tokens.numel() == rows.rows, "decoder: {} tokens for {} rows of {} samples", tokens.numel(),
        rows.rows, rows.samples);
  Tensor x = embedding_->forward(tokens, rows);  // [rows.rows, width]
  x = dropout(x, context.dropout_site(config_.dropout, kEmbeddingSite), rows.addresses);
  for (auto& block : blocks_) {
    if (context.gradients_ready) {
      on_backward([&context, &block = *block] { context.gradients_ready(block); });
    }
    if (context.recompute_blocks) {
      // The rows go along: the caller's may be gone when the block is run again.
      x = recompute(x, [&block = *block, &context, rows](const Tensor& input) {
        return block.forward(input, context, rows);
      });
    } else {
      x = block->forward(x, context, rows);
    }
  }
  return final_norm_->forward(x);
}

Device Decoder::device() const {
  return head().device();
}

CrossEntropy Decoder::loss(const Tensor& tokens, const LossTargets& targets, double scale,
                           const StepContext& context, const TokenRows& rows) {
  return linear_cross_entropy(forward(tokens, context, rows), head(), targets, scale);
}

void Decoder::end_step(const RoutingStep& routing) {
  for (size_t l = 0; l < moe_layers_.size(); ++l)
    moe_layers_[l]->end_step(routing.layer(static_cast<int64_t>(l)).sums);
}

std::vector<int64_t> Decoder::moe_blocks() const {
  std::vector<int64_t> blocks;
  for (int64_t i = 0; i < config_.layers; ++i)
    if (moe_.is_moe_layer(i)) blocks.push_back(i);
  return blocks;
}

const Tensor& Decoder::head() const {
  return head_ ? head_->tensor() : embedding_->table();
}

Tensor Decoder::logits(const Tensor& hidden) const {
  return adagate::logits(hidden, head());
}

std::vector<KvCache> Decoder::make_caches(int64_t sequences) const {
  return std::vector<KvCache>(blocks_.size(), KvCache{.sequences = sequences});
}

namespace {

// How many tokens each sequence is given.
int64_t tokens_each(const Tensor& tokens, int64_t sequences, std::span<const int32_t> lengths) {
  check(sequences > 0 && tokens.numel() > 0 && tokens.numel() % sequences == 0,
        "decoder: {} tokens for {} sequences", tokens.numel(), sequences);
  check(lengths.empty() || static_cast<int64_t>(lengths.size()) == sequences,
        "decoder: {} lengths for {} sequences", lengths.size(), sequences);
  for (int32_t length : lengths)
    check(length >= 1, "decoder: a sequence is to go on by {} tokens", length);
  return tokens.numel() / sequences;
}

// Where the next n tokens of each sequence stand.
TokenRows next_rows(const KvCache& cache, int64_t n, std::span<const int32_t> lengths,
                    Device device) {
  TokenRows rows = lengths.empty() ? padded_rows(cache.sequences, n) : padded_rows(lengths, n);
  rows.start = cache.length;
  // Sequences of unequal prompts stand at unequal positions, which the device knows.
  rows.positions = next_positions(cache, n, device);
  return rows.to(device);
}

// The row of each sequence's last token. x [sequences * n, width] -> [sequences, width]
Tensor last_rows(const Tensor& x, int64_t n, std::span<const int32_t> lengths) {
  // The head is as wide as the vocabulary: it sees the rows that are asked for only.
  if (n == 1) return x;
  std::vector<int32_t> index(static_cast<size_t>(x.rows() / n));
  for (size_t s = 0; s < index.size(); ++s) {
    const int64_t length = lengths.empty() ? n : lengths[s];
    index[s] = static_cast<int32_t>(static_cast<int64_t>(s) * n + length - 1);
  }
  const auto count = static_cast<int64_t>(index.size());
  return pick_rows(x, Tensor::from(std::span<const int32_t>(index), {count}, x.device()));
}

}  // namespace

Tensor Decoder::step(const Tensor& tokens, std::vector<KvCache>& caches,
                     std::span<const int32_t> lengths) {
  NoRecording off;
  check(caches.size() == blocks_.size(), "decoder: {} caches for {} blocks", caches.size(),
        blocks_.size());
  const KvCache& first = caches.front();
  const int64_t n = tokens_each(tokens, first.sequences, lengths);
  check(first.length + n <= config_.context, "{} tokens are more than model.context, {}",
        first.length + n, config_.context);
  StepContext context;
  const TokenRows rows = next_rows(first, n, lengths, device());
  Tensor x = embedding_->forward(tokens.to(device()), rows);
  for (size_t i = 0; i < blocks_.size(); ++i) x = blocks_[i]->step(x, context, rows, caches[i]);
  return logits(final_norm_->forward(last_rows(x, n, lengths)));
}

}  // namespace adagate
