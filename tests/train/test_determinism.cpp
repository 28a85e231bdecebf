// The same seed twice is the same training, bit for bit.
#ifdef _OPENMP
#include <omp.h>
#endif

#include "tests/support/catch.h"
#include "tests/train/tiny_run.h"

using namespace adagate;
using namespace adagate::tiny;

namespace {

bool identical(const Outcome& a, const Outcome& b) {
  return a.parameters == b.parameters && a.figures == b.figures;
}

Scenario scenario_of(DType compute) {
  return {.batch = 6,
          .sequence = 12,
          .steps = 4,
          .dtype = DType::f32,
          .compute = compute,
          .dropout = 0.1};
}

}  // namespace

TEST_CASE("determinism: the same run twice gives the same bits") {
  for (DType compute : {DType::f32, DType::bf16}) {
    Scenario s = scenario_of(compute);
    for (const Layout& l : {Layout{}, Layout{2, 2, 2}, Layout{4, 2, 1, true}}) {
      REQUIRE(identical(train_on_threads(s, l), train_on_threads(s, l)));
    }
  }
}

TEST_CASE("determinism: recomputed activations change no bit") {
  for (DType compute : {DType::f32, DType::bf16}) {
    Scenario s = scenario_of(compute);
    REQUIRE(identical(train_on_threads(s, {2, 2, 1, false}), train_on_threads(s, {2, 2, 1, true})));
  }
}

TEST_CASE("determinism: T < 0 trains as top-1 and T >= 1 as top-2, to the bit") {
  for (DType compute : {DType::f32, DType::bf16})
    for (bool modern : {false, true})
      for (auto [policy, threshold] : {std::pair{"top1", -1e-6}, {"top2", 1.0}}) {
        INFO(name_of(compute) << ", modern " << modern << ", " << policy);
        Scenario s = scenario_of(compute);
        s.modern = modern;
        s.policy = policy;
        Scenario adaptive = s;
        adaptive.policy = "adaptive";
        adaptive.threshold = threshold;
        REQUIRE(identical(train_on_threads(s, {2, 2, 2}), train_on_threads(adaptive, {2, 2, 2})));
      }
}

#ifdef _OPENMP
TEST_CASE("determinism: one thread or two give the same bits") {
  for (DType compute : {DType::f32, DType::bf16})
    for (bool modern : {false, true})
      for (const Layout& layout : {Layout{}, Layout{2, 2, 2, true}}) {
        INFO(name_of(compute) << ", modern " << modern << ", ranks " << layout.ranks);
        Scenario s = scenario_of(compute);
        s.modern = modern;
        // Large enough that the kernels share the work among the threads.
        s.steps = 2;
        s.batch = 24;
        s.sequence = 64;
        s.width = 64;
        Outcome results[2];
        for (int threads : {1, 2}) {
          run_ranks(layout.ranks, [&](std::shared_ptr<Communicator> world) {
            int before = omp_get_max_threads();
            omp_set_num_threads(threads);  // of the rank's own team
            bool first = world->rank() == 0;
            Outcome mine = train_on(s, layout, std::move(world));
            omp_set_num_threads(before);
            if (first) results[threads - 1] = std::move(mine);
          });
        }
        for (auto& [name, values] : results[0].parameters) {
          INFO(name);
          CHECK(values == results[1].parameters.at(name));
        }
        CHECK(results[0].figures == results[1].figures);
      }
}
#endif
