// Every layer keeps the contract of tests/support/layer_check.h: names of its parameters, gradients
// of input and parameters against finite differences in f64, the same seed gives the same output.
#include "layers/embedding.h"
#include "layers/feed_forward.h"
#include "layers/norm.h"
#include "layers/self_attention.h"
#include "layers/transformer_block.h"
#include "tests/support/layer_check.h"

using namespace adagate;
using namespace adagate::test;

namespace {

// `samples` samples of `sequence` tokens, of which the first has all and the others fewer.
TokenRows rows_of(int64_t samples, int64_t sequence) {
  std::vector<int32_t> lengths;
  std::vector<int64_t> places;
  for (int64_t s = 0; s < samples; ++s) {
    lengths.push_back(static_cast<int32_t>(std::max<int64_t>(1, sequence - s)));
    places.push_back(100 + s);
  }
  TokenRows rows = padded_rows(lengths, sequence);
  set_addresses(rows, places);
  return rows;
}

const std::set<std::string> kNorm = {"gamma", "beta"};

}  // namespace

TEST_CASE("linear keeps the layer contract", "[layers]") {
  for (bool bias : {true, false}) {
    Linear layer({.in = 9, .out = 5, .bias = bias, .initial_stddev = 0.3});
    std::set<std::string> names = {"weight"};
    if (bias) names.insert("bias");
    expect_layer_contract(layer, names, random_normal({7, 9}, 1),
                          [](Linear& l, const Tensor& x) { return l.forward(x); });
  }
}

TEST_CASE("norms keep the layer contract", "[layers]") {
  auto forward = [](Norm& l, const Tensor& x) { return l.forward(x); };
  Norm layer_norm(NormKind::layer_norm, 11, 1e-5), rms_norm(NormKind::rms_norm, 11, 1e-5);
  expect_layer_contract(layer_norm, kNorm, random_normal({6, 11}, 1, 2.0), forward);
  expect_layer_contract(rms_norm, {"gamma"}, random_normal({6, 11}, 1, 2.0), forward);
}

TEST_CASE("the feed-forward keeps the layer contract", "[layers]") {
  for (Activation a :
       {Activation::gelu, Activation::gelu_erf, Activation::silu, Activation::swiglu}) {
    INFO(name_of(a));
    FeedForward layer({.width = 6,
                       .hidden = 10,
                       .activation = a,
                       .bias = a != Activation::swiglu,
                       .initial_stddev = 0.4,
                       .output_initial_stddev = 0.4});
    std::set<std::string> names = {"up.weight", "down.weight"};
    if (a != Activation::swiglu) names.insert({"up.bias", "down.bias"});
    TokenRows rows = rows_of(1, 8);
    expect_layer_contract(
        layer, names, random_normal({8, 6}, 1),
        [&](FeedForward& l, const Tensor& x) { return l.forward(x, StepContext{}, rows); });
  }
}

TEST_CASE("self-attention keeps the layer contract", "[layers]") {
  struct Form {
    int64_t kv_heads;
    bool causal;
    double rotary_base, dropout;
  };
  for (Form form : {Form{4, true, 0, 0}, Form{2, true, 0, 0}, Form{2, true, 10000, 0},
                    Form{1, false, 100, 0}, Form{4, false, 0, 0.3}}) {
    INFO(form.kv_heads << " kv heads, causal " << form.causal << ", rotary " << form.rotary_base
                       << ", dropout " << form.dropout);
    SelfAttention layer({.width = 16,
                         .heads = 4,
                         .kv_heads = form.kv_heads,
                         .causal = form.causal,
                         .rotary_base = form.rotary_base,
                         .dropout = form.dropout,
                         .initial_stddev = 0.4,
                         .output_initial_stddev = 0.4});
    StepContext context{.training = true};
    TokenRows rows = rows_of(3, 5);
    // The output bias is the caller's to add, so that it can be fused with the residual.
    expect_layer_contract(layer, {"qkv.weight", "qkv.bias", "output.weight", "output.bias"},
                          random_normal({15, 16}, 1), [&](SelfAttention& l, const Tensor& x) {
                            auto [product, bias] = l.forward(x, context, rows);
                            return bias_activation(product, bias, Activation::identity);
                          });
  }
}

TEST_CASE("the embedding's gradients and its error", "[layers]") {
  Embedding layer({.vocabulary = 13, .width = 4, .positions = 6});
  ParameterStore store(layer, {.master = DType::f64, .compute = DType::f64, .allocate_grad = {}});
  store.initialize(1);
  Tensor tokens = Tensor::from(std::vector<int32_t>{3, 1, 3, 12, 0, 3, 7, 7}, {8});
  TokenRows rows = padded_rows(2, 4);
  store.clear_gradients();
  Tape tape;
  Tensor y;
  {
    Recording on(tape);
    y = layer.forward(tokens, rows);
  }
  tape.backward(y, cotangent(y, 0));
  auto loss = [&] { return dot(layer.forward(tokens, rows), cotangent(y, 0)); };
  REQUIRE(store.find("tokens"));
  REQUIRE(store.find("positions"));
  for (Parameter* p : store.parameters())
    check_against_differences(p->name(), p->master(), p->grad(), loss, 1e-6);
  CHECK_THROWS_WITH(
      layer.forward(tokens, padded_rows(1, 8)),
      Catch::Contains("8 tokens are more than") && Catch::Contains("model.context, 6"));
}

TEST_CASE("the transformer block keeps the layer contract", "[layers]") {
  for (bool modern : {false, true}) {
    INFO("modern " << modern);
    double dropout = modern ? 0.0 : 0.2;
    auto slot = std::make_unique<FeedForward>(
        FeedForwardConfig{.width = 8,
                          .hidden = 12,
                          .activation = modern ? Activation::swiglu : Activation::gelu,
                          .bias = !modern,
                          .initial_stddev = 0.4,
                          .output_initial_stddev = 0.4});
    TransformerBlock block({.attention = {.width = 8,
                                          .heads = 2,
                                          .kv_heads = modern ? 1 : 2,
                                          .rotary_base = modern ? 100.0 : 0.0,
                                          .dropout = dropout,
                                          .bias = !modern,
                                          .initial_stddev = 0.4,
                                          .output_initial_stddev = 0.4,
                                          .site = 1},
                            .norm = modern ? NormKind::rms_norm : NormKind::layer_norm,
                            .dropout = dropout},
                           "feed_forward", std::move(slot));
    std::set<std::string> names = {"attention_norm.gamma",    "attention.qkv.weight",
                                   "attention.output.weight", "feed_forward_norm.gamma",
                                   "feed_forward.up.weight",  "feed_forward.down.weight"};
    if (!modern)
      names.insert({"attention_norm.beta", "attention.qkv.bias", "attention.output.bias",
                    "feed_forward_norm.beta", "feed_forward.up.bias", "feed_forward.down.bias"});
    StepContext context{.training = true};
    TokenRows rows = rows_of(2, 5);
    expect_layer_contract(
        block, names, random_normal({10, 8}, 1),
        [&](TransformerBlock& l, const Tensor& x) { return l.forward(x, context, rows); });
  }
}
