// The figures of one step against sums over its samples, and what clipping does to its gradient.
#include "tests/support/catch.h"
#include "tests/train/tiny_run.h"

using namespace adagate;
using namespace adagate::tiny;

namespace {

struct OneStep {
  StepResult result;
  double moment = 0;  // L2 norm of AdamW's first moments
  Outcome::Numbers parameters;
};

OneStep step_on(const Scenario& s, const std::vector<int64_t>& ids, double clip_norm) {
  Mesh mesh = make_self_mesh();
  Decoder model(model_config(s), moe_config(s), mesh);
  ParameterStore store(model, {.master = s.dtype, .compute = s.compute});
  store.initialize(5);
  AdamW adamw(store, {.beta1 = 0.75});
  TrainingStep step(model, kNextToken, store, adamw, mesh, {.seed = 9, .clip_norm = clip_norm});
  Samples samples(s, 16);
  OneStep done;
  done.result = step.run(std::vector{make_batch(samples, ids, ids)}, 0, 0.01, false);
  for (Parameter* p : store.parameters()) {
    done.parameters[p->name()] = p->master().to_doubles();
    for (double m : adamw.first_moment(*p).to_doubles()) done.moment += m * m;
  }
  done.moment = std::sqrt(done.moment);
  return done;
}

}  // namespace

TEST_CASE("step: counts samples, tokens, targets and the pairs that attention sees") {
  Scenario s{};
  for (const std::vector<int64_t>& ids :
       {std::vector<int64_t>{0}, {1, 2, 3}, {0, 1, 2, 3, 4, 5, 6, 7}}) {
    int64_t tokens = 0, targets = 0, pairs = 0;
    for (int64_t id : ids) {
      Sample sample = make_sample(s, id);
      for (size_t query = 0; query < sample.ids.size(); ++query) {
        ++tokens;
        targets += sample.targets[query] >= 0;
        for (size_t key = 0; key <= query; ++key) ++pairs;
      }
    }
    StepResult result = step_on(s, ids, 1).result;
    CHECK(result.samples == static_cast<int64_t>(ids.size()));
    CHECK(result.tokens == tokens);
    CHECK(result.targets == targets);
    CHECK(result.visible_pairs == pairs);
  }
}

TEST_CASE("step: clipping scales the gradient down to the norm asked for, 0 leaves it") {
  const std::vector<int64_t> ids{0, 1, 2, 3};
  OneStep free = step_on({}, ids, 1e30);
  REQUIRE(free.result.grad_norm > 0.01);
  double norm = free.result.grad_norm;
  for (double clip : {0.0, norm / 1000, norm / 2, norm * 1.001, norm * 1000}) {
    INFO("a norm of " << norm << ", clipped to " << clip);
    OneStep clipped = step_on({}, ids, clip);
    CHECK(clipped.result.grad_norm == norm);  // it is shown as it was
    double expected = clip > 0 ? std::min(norm, clip) : norm;
    CHECK(clipped.moment == Approx(0.25 * expected).epsilon(1e-10));
    if (expected == norm) CHECK(clipped.parameters == free.parameters);
  }
}
