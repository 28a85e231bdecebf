// Every key of the sections model and moe that shapes the model changes what it computes.
#include <functional>

#include "core/nn/parameter_store.h"
#include "models/decoder.h"
#include "tests/support/catch.h"
#include "tests/support/one_thread.h"
#include "tests/support/op_case.h"

namespace adagate::test {
namespace {

struct Options {
  ModelConfig model;
  MoeConfig moe;
};

// Rotary, with dropout in both forms, weights large enough to matter, and one block of experts.
Options base_options() {
  Options o;
  o.model.layers = 2;
  o.model.width = 16;
  o.model.heads = 4;
  o.model.context = 8;
  o.model.vocabulary = 11;
  o.model.positions = "rotary";
  o.model.dropout = 0.2;
  o.model.attention_dropout = 0.2;
  o.model.initializer_range = 0.4;
  o.moe.experts = 6;
  o.moe.every = 2;
  return o;
}

// The mean loss of a training step from random weights, biases among them.
double loss_of(const Options& options) {
  constexpr int64_t kBatch = 3, kSequence = 8;
  Decoder decoder(options.model, options.moe, make_self_mesh());
  ParameterStore store(decoder, {.master = DType::f64, .compute = DType::f64, .allocate_grad = {}});
  store.initialize(1);
  for (Parameter* p : store.parameters())
    if (p->name().ends_with("bias"))
      p->master().copy_from(random_normal(p->spec().shape, hash_name(p->name()), 0.4));
  StepContext context{.training = true, .seed = 3};
  TokenRows rows = padded_rows(kBatch, kSequence);
  set_addresses(rows, std::vector<int64_t>{0, 1, 2});
  return decoder
             .loss(random_integers({kBatch * kSequence}, 1, 0, 11),
                   loss_targets(random_integers({kBatch * kSequence}, 2, 0, 11).to_host<int32_t>(),
                                11),
                   1.0, context, rows)
             .sum.to_host<double>()[0] /
         static_cast<double>(kBatch * kSequence);
}

struct Key {
  std::string name;
  std::function<void(Options&)> change;
  std::function<void(Options&)> before = {};  // what the key needs to matter
};

std::vector<Key> model_keys() {
  return {
      {"layers", [](Options& o) { o.model.layers = 3; }},
      {"width", [](Options& o) { o.model.width = 32; }},
      {"heads", [](Options& o) { o.model.heads = 8; }},
      {"kv_heads", [](Options& o) { o.model.kv_heads = 2; }},
      {"feed_forward", [](Options& o) { o.model.feed_forward = 40; }},
      {"vocabulary", [](Options& o) { o.model.vocabulary = 12; }},
      {"positions", [](Options& o) { o.model.positions = "learned"; }},
      {"rotary_base", [](Options& o) { o.model.rotary_base = 100; }},
      {"norm", [](Options& o) { o.model.norm = "rms_norm"; }},
      {"norm_epsilon", [](Options& o) { o.model.norm_epsilon = 1e-2; }},
      {"activation relu", [](Options& o) { o.model.activation = "relu"; }},
      {"activation silu", [](Options& o) { o.model.activation = "silu"; }},
      {"activation gelu_erf", [](Options& o) { o.model.activation = "gelu_erf"; }},
      {"activation swiglu", [](Options& o) { o.model.activation = "swiglu"; }},
      {"bias", [](Options& o) { o.model.bias = false; }},
      {"tie_embeddings", [](Options& o) { o.model.tie_embeddings = false; }},
      {"dropout", [](Options& o) { o.model.dropout = 0.3; }},
      {"attention_dropout", [](Options& o) { o.model.attention_dropout = 0.3; }},
      {"initializer_range", [](Options& o) { o.model.initializer_range = 0.3; }},
  };
}

std::vector<Key> moe_keys() {
  auto topk = [](Options& o) { o.moe.gate.policy = "topk"; };
  auto random = [](Options& o) { o.moe.gate.policy = "random_one_or_two"; };
  return {
      {"experts", [](Options& o) { o.moe.experts = 8; }},
      {"no experts", [](Options& o) { o.moe.experts = 0; }},
      {"every", [](Options& o) { o.moe.every = 1; }},
      {"expert_feed_forward", [](Options& o) { o.moe.expert_feed_forward = 40; }},
      {"gate.policy", [](Options& o) { o.moe.gate.policy = "top1"; }},
      {"gate.k", [](Options& o) { o.moe.gate.k = 3; }, topk},
      {"gate.threshold", [](Options& o) { o.moe.gate.threshold = 0.5; }},
      {"gate.normalize", [](Options& o) { o.moe.gate.normalize = "pair"; }},
      {"gate.combine", [](Options& o) { o.moe.gate.combine = "renormalized"; }},
      {"gate.k_max", [](Options& o) { o.moe.gate.k_max = 3; }},
      {"gate.two_expert_share", [](Options& o) { o.moe.gate.two_expert_share = 0.6; }, random},
  };
}

}  // namespace

TEST_CASE("every key of the model has its effect", "[models]") {
  OneThread one_thread;  // the work is too small to share
  std::vector<Key> keys = model_keys(), more = moe_keys();
  keys.insert(keys.end(), more.begin(), more.end());
  for (const Key& key : keys) {
    INFO(key.name);
    Options options = base_options();
    if (key.before) key.before(options);
    double before = loss_of(options);
    REQUIRE(std::isfinite(before));
    REQUIRE(loss_of(options) == before);
    key.change(options);
    CHECK(std::abs(loss_of(options) - before) > 1e-6);
  }
}

TEST_CASE("tokens past the context are refused, whatever the positions", "[models]") {
  for (std::string positions : {"learned", "rotary"}) {
    INFO(positions);
    Options options = base_options();
    options.model.positions = positions;
    Decoder decoder(options.model, options.moe, make_self_mesh());
    ParameterStore store(decoder, {});
    store.initialize(1);
    auto caches = decoder.make_caches();
    CHECK(decoder.step(random_integers({8}, 1, 0, 11), caches).shape() == Shape{1, 11});
    CHECK_THROWS_WITH(decoder.step(random_integers({1}, 2, 0, 11), caches),
                      Catch::Contains("9 tokens are more than model.context, 8"));
    auto fresh = decoder.make_caches();
    CHECK_THROWS_WITH(decoder.step(random_integers({9}, 1, 0, 11), fresh),
                      Catch::Contains("9 tokens are more than model.context, 8"));
  }
}

}  // namespace adagate::test
