// Counts of parameters and operations, and the plan made of them, against the model itself: the
// parameters that a Decoder really has, and the products that they enter.
#include "core/base/bytes_text.h"
#include "models/decoder.h"
#include "models/flops.h"
#include "models/parameter_counts.h"
#include "parallel/thread_communicator.h"
#include "tests/support/catch.h"
#include "tests/train/watched_run.h"
#include "train/memory_check.h"
#include "train/plan_report.h"

namespace adagate {
namespace {

using namespace tiny;

struct Form {
  const char* name;
  std::function<void(RunConfig&)> change;
};

// Every key that changes what parameters there are.
const std::vector<Form> kForms = {
    {"gpt2", [](RunConfig&) {}},
    {"untied", [](RunConfig& c) { c.model.tie_embeddings = false; }},
    {"no biases", [](RunConfig& c) { c.model.bias = false; }},
    {"rms norm", [](RunConfig& c) { c.model.norm = "rms_norm"; }},
    {"rotary", [](RunConfig& c) { c.model.positions = "rotary"; }},
    {"swiglu", [](RunConfig& c) { c.model.activation = "swiglu"; }},
    {"grouped queries", [](RunConfig& c) { c.model.kv_heads = 2; }},
    {"feed-forward width", [](RunConfig& c) { c.model.feed_forward = 20; }},
    {"modern",
     [](RunConfig& c) {
       c.model.preset = "modern";
       c.model.apply_preset();
       c.model.kv_heads = 1;
     }},
    {"experts", [](RunConfig& c) { c.moe.experts = 6; }},
    {"experts in every second block",
     [](RunConfig& c) {
       c.moe.experts = 4;
       c.moe.every = 2;
     }},
    {"experts of another width",
     [](RunConfig& c) {
       c.moe.experts = 4;
       c.moe.every = 2;
       c.moe.expert_feed_forward = 12;
     }},
    {"gated experts without biases",
     [](RunConfig& c) {
       c.moe.experts = 2;
       c.model.activation = "swiglu";
       c.model.bias = false;
     }},
};

RunConfig config_of(const Form& form) {
  RunConfig c;
  c.model.layers = 3;
  c.model.width = 24;
  c.model.heads = 4;
  c.model.context = 10;
  c.model.vocabulary = 31;
  form.change(c);
  return c;
}

struct RealModel {
  Decoder decoder;
  ParameterStore store;
  explicit RealModel(const RunConfig& c, const Mesh& mesh = make_self_mesh())
      : decoder(c.model, c.moe, mesh), store(decoder, {}) {}
};

bool of_experts(const Parameter& p) {
  return p.spec().group == ParameterGroup::expert;
}

}  // namespace

TEST_CASE("parameter count: all, and those that a token uses") {
  for (const Form& form : kForms) {
    INFO(form.name);
    RunConfig c = config_of(form);
    RealModel real(c);
    int64_t dense = 0, experts = 0;
    for (const Parameter* p : real.store.parameters())
      (of_experts(*p) ? experts : dense) += p->numel();
    REQUIRE((experts > 0) == (c.moe.experts > 0));
    int64_t one = experts / std::max<int64_t>(1, c.moe.experts);  // in each of the MoE layers
    for (double taken : {1.0, 1.5, 2.0}) {
      ParameterCounts counts = count_parameters(real.decoder, taken);
      CHECK(counts.total == dense + experts);
      CHECK(counts.active == dense + static_cast<int64_t>(taken * static_cast<double>(one)));
    }
  }
}

TEST_CASE("operations: two per weight of every product and token, four per head element and pair") {
  for (const Form& form : kForms) {
    INFO(form.name);
    RunConfig c = config_of(form);
    RealModel real(c);
    double per_token = 0, per_assignment = 0;
    for (const Parameter* p : real.store.parameters()) {
      auto weights = static_cast<double>(p->numel());
      if (of_experts(*p) && p->spec().shape.rank() == 3) per_assignment += 2 * weights;
      bool matrix = !of_experts(*p) && p->spec().shape.rank() == 2;
      // Looking rows up is no product; the tied head is one with the embedding.
      bool looked_up = p->name() == "embedding.positions" ||
                       (p->name() == "embedding.tokens" && !c.model.tie_embeddings);
      if (matrix && !looked_up) per_token += 2 * weights;
    }
    FlopCounts counts = real.decoder.flops();
    CHECK(counts.per_token == per_token);
    if (c.moe.experts > 0) {
      auto layers = static_cast<double>(real.decoder.moe_layers());
      CHECK(counts.per_assignment == per_assignment / static_cast<double>(c.moe.experts) / layers);
    }
    // A query's dot product with a key and the value's share in the result, in every head and
    // block.
    double elements = static_cast<double>(c.model.layers * c.model.width);
    CHECK(counts.per_token_pair == 2 * elements + 2 * elements);
    // The backward pass is twice the forward.
    CHECK(training_flops(counts, 7, 0, 0) == 3 * 7 * counts.per_token);
    CHECK(training_flops(counts, 0, 5, 0) == 3 * 5 * counts.per_token_pair);
    CHECK(training_flops(counts, 0, 0, 2) == 3 * 2 * counts.per_assignment);
  }
}

TEST_CASE("operations: those of a run's steps") {
  TempFolder folder;
  RunConfig config = run_config(folder);
  config.data.shuffle = false;
  config.moe.experts = 2;
  config.moe.gate.policy = "top2";
  config.moe.balance.loss = "switch";
  config.model.vocabulary = 257;
  Watcher seen = watch(config);
  // Samples of 8 tokens and 1 + ... + 8 = 36 pairs; the last has 3 tokens and 6 pairs.
  const int64_t tokens[] = {16, 16, 11}, pairs[] = {72, 72, 36 + 6};
  REQUIRE(seen.steps.size() == 3);
  for (size_t i = 0; i < 3; ++i) {
    CHECK(seen.steps[i].result.tokens == tokens[i]);
    CHECK(seen.steps[i].result.visible_pairs == pairs[i]);
    CHECK(seen.steps[i].flops == training_flops(count_flops(config.model, config.moe), tokens[i],
                                                pairs[i], 2 * tokens[i]));
  }
  CHECK(causal_pairs(8) == 36);
}

TEST_CASE("plan: a rank's memory for parameters is what they, gradients and moments take") {
  for (const char* precision : {"fp32", "bf16"})
    for (int ranks : {1, 2})
      for (const Form& form : kForms) {
        RunConfig c = config_of(form);
        c.precision = precision;
        c.parallel.expert = c.moe.experts > 0 ? ranks : 1;
        INFO(form.name << " in " << precision << " on " << ranks);
        int64_t elements = 0;  // on rank 0
        run_ranks(ranks, [&](std::shared_ptr<Communicator> world) {
          RealModel real(c, make_mesh(world, static_cast<int>(c.parallel.expert)));
          if (world->rank() > 0) return;
          for (const Parameter* p : real.store.parameters()) elements += p->numel();
        });
        // Value, gradient and two moments in fp32; the bf16 copy.
        int64_t bytes = elements * (4 * 4 + (c.precision == "bf16" ? 2 : 0));
        CHECK(estimate_memory(c, kLanguageModelling, ranks).parameters == bytes);
      }
}

TEST_CASE("plan: a rank's memory for activations is that of its part of the batch") {
  auto activations = [](const std::function<void(RunConfig&)>& change, int ranks = 1) {
    RunConfig c = config_of(kForms.front());
    c.moe.experts = 4;
    c.train.batch = 8;
    change(c);
    return estimate_memory(c, kLanguageModelling, ranks).activations;
  };
  auto with_gate = [&](const std::string& policy, int64_t k) {
    return activations([&](RunConfig& c) {
      c.moe.gate.policy = policy;
      c.moe.gate.k = c.moe.gate.k_max = k;
    });
  };
  int64_t whole = activations([](RunConfig&) {});
  int64_t half = activations([](RunConfig& c) { c.train.batch = 4; });
  CHECK(half < whole);
  CHECK(activations([](RunConfig& c) { c.train.accumulation = 2; }) == half);
  CHECK(activations([](RunConfig&) {}, 2) == half);
  CHECK(activations([](RunConfig& c) { c.train.batch = 7; }, 2) == half);  // the larger part
  CHECK(activations([](RunConfig& c) { c.train.activation_checkpointing = "block"; }) < whole);
  CHECK(activations([](RunConfig& c) { c.precision = "bf16"; }) < whole);
  // Room for the most experts that a token may take.
  CHECK(with_gate("top1", 4) < with_gate("top2", 4));
  CHECK(with_gate("adaptive", 1) == with_gate("top1", 4));
  CHECK(with_gate("adaptive", 2) == with_gate("top2", 4));
  CHECK(with_gate("random_one_or_two", 4) == with_gate("top2", 4));
  CHECK(with_gate("topk", 2) == with_gate("top2", 4));
  CHECK(with_gate("topk", 3) == with_gate("adaptive", 3));
  CHECK(with_gate("topk", 3) > with_gate("topk", 2));
}

TEST_CASE("plan: the experts that a policy is known to take") {
  auto plan_with = [](const std::string& policy) {
    RunConfig c = config_of(kForms.front());
    c.moe.experts = 4;
    c.moe.gate.policy = policy;
    c.moe.gate.k = 3;
    c.moe.gate.two_expert_share = 0.25;
    return plan_report(c, 1);
  };
  CHECK_THAT(plan_with("top1"), Catch::Contains("(1 expert of 4 in 3 of 3 layers)"));
  CHECK_THAT(plan_with("top2"), Catch::Contains("(2 experts of 4 in 3 of 3 layers)"));
  CHECK_THAT(plan_with("topk"), Catch::Contains("(3 experts of 4 in 3 of 3 layers)"));
  CHECK_THAT(plan_with("random_one_or_two"), Catch::Contains("(1.25 experts of 4 in"));
  CHECK_THAT(plan_with("adaptive"),
             Catch::Contains("(1 expert of 4 in 3 of 3 layers, more where the gate hesitates)"));
}

TEST_CASE("plan: amounts are shown in the unit that suits them") {
  for (auto [bytes, text] :
       std::initializer_list<std::pair<double, const char*>>{{0, "0 bytes"},
                                                             {1023, "1023 bytes"},
                                                             {1024, "1.0 KiB"},
                                                             {1536, "1.5 KiB"},
                                                             {1048575, "1.0 MiB"},
                                                             {5e9, "4.7 GiB"},
                                                             {2359558515.0 * 1048576, "2.2 PiB"},
                                                             {9e18, "7.8 EiB"}})
    CHECK(bytes_text(bytes) == text);
}

TEST_CASE("plan: a run that the memory can't hold is refused") {
  MemoryEstimate estimate{.parameters = 3 << 20, .activations = 1 << 20};
  std::string need =
      "a rank takes about 4.0 MiB, of which 3.0 MiB for parameters and optimizer, but is left ";
  check_memory(estimate, {.bytes = 4 << 20, .source = "x"});
  CHECK(tight_memory(estimate, {.bytes = 4 << 20, .source = "x"}).empty());
  MemoryBudget less{.bytes = (4 << 20) - 1, .source = "the limit of the container"};
  CHECK_THROWS_WITH(check_memory(estimate, less),
                    Catch::Contains(need + "4.0 MiB by the limit of the container"));
  CHECK_THAT(tight_memory(estimate, less),
             Catch::StartsWith("the memory may not suffice: " + need));
  less.bytes = (3 << 20) - 1;
  CHECK_THROWS_WITH(tight_memory(estimate, less),
                    Catch::StartsWith("out of memory before it starts: " + need));
}

TEST_CASE("plan: shows the counts, the mesh and the step") {
  RunConfig c = config_of({"", [](RunConfig& config) {
                             config.moe.experts = 4;
                             config.moe.every = 2;
                             config.moe.gate.policy = "top2";
                             config.parallel.expert = 2;
                             config.train.batch = 6;
                           }});
  ParameterCounts counts = count_parameters(RealModel(c).decoder, 2);
  REQUIRE(counts.total > 10000);
  std::string text = plan_report(c, 6);
  INFO(text);
  CHECK_THAT(text, Catch::Contains(fmt::format("{:.1f}k total, {:.1f}k active per token",
                                               static_cast<double>(counts.total) * 1e-3,
                                               static_cast<double>(counts.active) * 1e-3)));
  CHECK_THAT(text, Catch::Contains("2 experts of 4 in 1 of 3 layers"));
  CHECK_THAT(text, Catch::Contains("6 ranks = 2 expert-parallel x 3 replicas"));
  CHECK_THAT(text, Catch::Contains("6 samples of 10 tokens = 60 tokens"));
  CHECK_THAT(text, Catch::Contains("balance      loss switch (auto), times 0.01\n"));
  c.moe.balance.loss = "none";
  CHECK_THAT(plan_report(c, 6), Catch::Contains("balance      loss none, times 0.01\n"));
  c.moe.experts = 0;
  CHECK_THAT(plan_report(c, 6), !Catch::Contains("balance"));
}

}  // namespace adagate
