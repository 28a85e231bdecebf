// When a gating policy learns that a step has ended, and of what.
#include <cmath>

#include "tests/support/catch.h"
#include "tests/train/tiny_run.h"

namespace adagate {
namespace {

using namespace tiny;

// What the policies of one rank's gates were told: the steps in turn, layer by layer.
using Told = std::vector<std::vector<double>>;

class Listener : public RulePolicy {
 public:
  explicit Listener(Told& told)
      : RulePolicy({.kind = SelectionRule::Kind::gap, .k_max = 2, .threshold = 0.1}), told_(told) {}
  void end_step(const RoutingSums& sums) override { told_.push_back(sums.assigned); }

 private:
  Told& told_;
};

struct Heard {
  Told told, counted;  // by the policies, and in the step's routing
  std::vector<bool> skipped;
};

// Three steps on rank 0; with `break_at` the weights are not finite from that step on.
Heard listen(const Layout& layout, int64_t break_at = -1) {
  Scenario s{};
  Heard heard;
  run_ranks(layout.ranks, [&](std::shared_ptr<Communicator> world) {
    Mesh mesh = make_mesh(std::move(world), layout.expert_parallel);
    Told told;
    Decoder model(model_config(s), moe_config(s), mesh,
                  [&](const GateConfig&, int64_t) { return std::make_unique<Listener>(told); });
    ParameterStore store(model, {.master = DType::f64, .compute = DType::f64});
    store.initialize(5);
    AdamW adamw(store, {});
    TrainingStep step(model, kNextToken, store, adamw, mesh,
                      {.seed = 9, .recompute_blocks = layout.recompute_blocks});
    Samples samples(s, 64);
    for (int64_t i = 0; i < 3; ++i) {
      if (i == break_at) store.find("embedding.tokens")->master().fill(NAN);
      std::vector<Batch> batches;
      for (int64_t m = 0; m < layout.accumulation; ++m) {
        std::vector<int64_t> ids;
        for (int64_t row = 0; row < 8; ++row)
          if (row % (layout.ranks * layout.accumulation) == m * layout.ranks + mesh.world->rank())
            ids.push_back(row);
        batches.push_back(make_batch(samples, ids, ids));
      }
      bool skipped = step.run(batches, i, 0.01, false).skipped;
      if (mesh.world->rank() > 0) continue;
      heard.skipped.push_back(skipped);
      for (int64_t l = 0; l < model.moe_layers(); ++l)
        heard.counted.push_back(step.routing().layer(l).sums.assigned);
    }
    if (mesh.world->rank() == 0) heard.told = told;
  });
  return heard;
}

}  // namespace

TEST_CASE("policies are told of every step's end once per layer, with the sums of all ranks") {
  Heard whole = listen({});
  CHECK(whole.told.size() == 6);  // two layers
  CHECK(whole.told == whole.counted);
  CHECK(whole.told[0] != whole.told[1]);
  for (Layout layout : {Layout{2, 2, 1}, Layout{1, 1, 2, true}, Layout{2, 1, 2}}) {
    Heard heard = listen(layout);
    CHECK(heard.told == heard.counted);
    CHECK(heard.told == whole.told);
  }
}

TEST_CASE("a skipped step is none for the policies") {
  Heard one = listen({}, 1);
  CHECK(one.skipped == std::vector<bool>{false, true, true});
  CHECK(one.told.size() == 2);
  CHECK(listen({}, 0).told.empty());
}

}  // namespace adagate
