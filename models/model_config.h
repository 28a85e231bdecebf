// Shape of a model (YAML section model).
#pragma once

#include <cstdint>
#include <string>

#include "core/base/fields.h"

namespace adagate {

struct ModelConfig {
  std::string family = "decoder";
  std::string preset = "custom";
  int64_t layers = 6;
  int64_t width = 384;
  int64_t heads = 6;
  int64_t kv_heads = 0;      // 0: as many as heads; see key_value_heads()
  int64_t feed_forward = 0;  // 0: from the width; see feed_forward_width()
  int64_t context = 256;
  int64_t vocabulary = 0;  // 0: the tokenizer's
  std::string positions = "learned";
  double rotary_base = 10000.0;
  std::string norm = "layer_norm";
  double norm_epsilon = 1e-5;
  std::string activation = "gelu";
  bool bias = true;
  bool tie_embeddings = true;
  double dropout = 0.0;
  double attention_dropout = 0.0;
  double initializer_range = 0.02;

  // Values with their "0: derived" forms filled in.
  int64_t key_value_heads() const { return kv_heads > 0 ? kv_heads : heads; }
  int64_t head_size() const { return width / heads; }
  bool gated() const { return activation == "swiglu"; }  // feed-forward has two input projections
  int64_t feed_forward_width() const {
    if (feed_forward > 0) return feed_forward;
    // Two thirds of 4 * width keeps SwiGLU's three matrices at the size of the plain form's two.
    return gated() ? (8 * width + 3 * 64 - 1) / (3 * 64) * 64 : 4 * width;
  }

  void apply_preset() {
    if (preset == "custom") return;
    bool modern = preset == "modern";
    positions = modern ? "rotary" : "learned";
    norm = modern ? "rms_norm" : "layer_norm";
    activation = modern ? "swiglu" : "gelu";
    bias = !modern;
    tie_embeddings = !modern;
  }

  template <class V, class Self>
  static void visit(V& v, Self& s) {
    v.field("family", s.family, "architecture: a decoder-only transformer", one_of({"decoder"}));
    v.field("preset", s.preset,
            "sets the defaults of the keys below, explicit keys win; gpt2: learned positions, "
            "layer_norm, gelu, bias, tied embeddings; modern: rotary, rms_norm, swiglu, no bias, "
            "untied; custom: the defaults listed here",
            one_of({"gpt2", "modern", "custom"}));
    adagate::apply_preset(v, s);
    v.field("layers", s.layers, "transformer blocks", between(1, 10000));
    v.field("width", s.width, "elements of a token's hidden vector", between(1, 1000000));
    v.field("heads", s.heads, "attention heads; must divide width", between(1, 100000));
    v.field("kv_heads", s.kv_heads,
            "key and value heads (grouped-query attention); must divide heads; 0: as many as heads",
            between(0, 100000));
    v.field("feed_forward", s.feed_forward,
            "inner width of the feed-forward; 0: 4 * width, for swiglu 8/3 * width rounded up to a "
            "multiple of 64",
            between(0, 10000000));
    v.field("context", s.context, "tokens of one sample; positions the model knows",
            between(1, 10000000));
    v.field("vocabulary", s.vocabulary,
            "rows of the embedding; 0: the tokenizer's size; rows beyond it take part in the "
            "loss, where they are never the right answer, and are never drawn by generate",
            between(0, 100000000));
    v.field("positions", s.positions, "how the model sees token order",
            one_of({"learned", "rotary"}));
    v.field("rotary_base", s.rotary_base, "base of the rotary wavelengths (rotary only)",
            greater_than(0.0));
    v.field("norm", s.norm, "normalisation before attention, feed-forward and head",
            one_of({"layer_norm", "rms_norm"}));
    v.field("norm_epsilon", s.norm_epsilon, "added to the variance", greater_than(0.0));
    v.field("activation", s.activation,
            "of the feed-forward; gelu is the tanh form (GPT-2), gelu_erf the exact one",
            one_of({"gelu", "gelu_erf", "relu", "silu", "swiglu"}));
    v.field("bias", s.bias, "linear layers have biases");
    v.field("tie_embeddings", s.tie_embeddings, "the output head is the token embedding");
    v.field("dropout", s.dropout, "share of elements dropped after the embedding and in residuals",
            between(0.0, 0.999));
    v.field("attention_dropout", s.attention_dropout, "share of attention weights dropped",
            between(0.0, 0.999));
    v.field("initializer_range", s.initializer_range,
            "standard deviation of initial weights; residual outputs get it / sqrt(2 * layers)",
            greater_than(0.0));
  }
};

}  // namespace adagate
