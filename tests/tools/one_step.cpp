// Runs a step of fixed size a given number of times: tests/perf/instruction_guard.py counts its
// instructions. The learning rate is 0, so that every step is the same work.
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

#include "tests/support/fixed_step.h"

using namespace adagate;

int main(int argc, char** argv) {
  try {
    std::string name = argc == 3 ? argv[1] : "";
    fixed_step::Sizes sizes;
    if (name == "moe_adaptive_fp32") {
      sizes.experts = 8;
      sizes.padded = true;
    } else if (name != "dense_fp32") {
      std::fprintf(stderr, "usage: one_step dense_fp32|moe_adaptive_fp32 STEPS\n");
      return 2;
    }
    fixed_step::Trainer trainer(sizes);
    Batch batch = fixed_step::make_up_batch(sizes, 0);
    StepResult result;
    for (int i = 0; i < std::atoi(argv[2]); ++i) result = trainer.run(batch, 0.0);
    std::printf("loss %.4f, %lld rows of %lld tokens at experts\n", result.loss,
                static_cast<long long>(trainer.assignments()),
                static_cast<long long>(result.tokens));
  } catch (const std::exception& e) {
    std::fprintf(stderr, "one_step: %s\n", e.what());
    return 1;
  }
}
