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

#ifdef _OPENMP
TEST_CASE("determinism: one thread or two give the same bits") {
  int before = omp_get_max_threads();
  for (DType compute : {DType::f32, DType::bf16}) {
    Scenario s = scenario_of(compute);
    Outcome results[2];
    for (int threads : {1, 2}) {
      omp_set_num_threads(threads);
      results[threads - 1] = train_on(s, {}, make_self_communicator());
    }
    REQUIRE(identical(results[0], results[1]));
  }
  omp_set_num_threads(before);
}
#endif
