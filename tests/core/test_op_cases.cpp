// What holds for every op in the list: gradients against finite differences, f32 and bf16 against
// f64, gradients added where a buffer is filled and written where it is not, at awkward sizes.
#include "tests/support/gradient_check.h"
#include "tests/support/op_cases.h"

using namespace adagate;
using namespace adagate::test;

namespace {

constexpr int64_t kSizes[] = {0, 1, 31, 32, 33, 1000};

template <class F>
void for_each_case(F&& f) {
  for (const OpCase& op : op_cases()) {
    for (int64_t n : kSizes) {
      if (n > op.largest) continue;
      INFO(op.name << ", size " << n);
      f(op, op.inputs(n));
    }
  }
}

// The inputs as `type` holds them, so that only the op's own error is seen.
std::vector<OpInput> rounded(std::vector<OpInput> inputs, DType type) {
  for (OpInput& input : inputs) {
    if (!is_floating(input.values.dtype())) continue;
    bool precise = input.role == Role::precise && type == DType::bf16;
    input.values = input.values.to(precise ? DType::f32 : type).to(DType::f64);
  }
  return inputs;
}

}  // namespace

TEST_CASE("Gradients of every op agree with finite differences") {
  for_each_case([](const OpCase& op, const std::vector<OpInput>& inputs) {
    check_gradients(inputs, op.function, op.tolerance.finite_difference);
  });
}

TEST_CASE("Every op in f32 and bf16 agrees with f64") {
  for_each_case([](const OpCase& op, const std::vector<OpInput>& inputs) {
    for (DType type : {DType::f32, DType::bf16}) {
      double tolerance = type == DType::f32 ? op.tolerance.f32 : op.tolerance.bf16;
      auto same = rounded(inputs, type);
      Evaluation exact = evaluate(same, op.function, DType::f64);
      Evaluation got = evaluate(same, op.function, type);
      for (size_t i = 0; i < exact.outputs.size(); ++i) {
        INFO(name_of(type) << ", output " << i);
        CHECK(relative_error(got.outputs[i], exact.outputs[i]) <= tolerance);
      }
      for (size_t i = 0; i < exact.gradients.size(); ++i) {
        INFO(name_of(type) << ", gradient of input " << i);
        if (exact.gradients[i]) {
          CHECK(relative_error(got.gradients[i], exact.gradients[i]) <= tolerance);
        }
      }
    }
  });
}

TEST_CASE("Every op adds to gradients that are already there") {
  for_each_case([](const OpCase& op, const std::vector<OpInput>& inputs) {
    constexpr double kBefore = 3.0;
    Evaluation fresh = evaluate(inputs, op.function, DType::f64);
    Evaluation added = evaluate(inputs, op.function, DType::f64, kBefore);
    for (size_t i = 0; i < fresh.gradients.size(); ++i) {
      if (!fresh.gradients[i]) continue;
      INFO("gradient of input " << i);
      Tensor expected = fresh.gradients[i].clone();
      for (int64_t j = 0; j < expected.numel(); ++j) expected.data<double>()[j] += kBefore;
      CHECK(relative_error(added.gradients[i], expected) <= 1e-12);
    }
  });
}
