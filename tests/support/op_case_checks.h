// What must hold for an op of the list, at awkward sizes.
#pragma once

#include "tests/support/gradient_check.h"
#include "tests/support/op_case.h"

namespace adagate::test {

constexpr int64_t kOpCaseSizes[] = {0, 1, 31, 32, 33, 1000};

// Calls f(op, inputs) for each size the op is tried at.
template <class F>
void for_each_size(const OpCase& op, F&& f) {
  for (int64_t n : kOpCaseSizes) {
    INFO(op.name << ", size " << n);
    f(op, op.inputs(n));
  }
}

// The inputs as `type` holds them, so that only the op's own error is seen.
inline std::vector<OpInput> rounded(std::vector<OpInput> inputs, DType type) {
  for (OpInput& input : inputs) {
    if (!is_floating(input.values.dtype())) continue;
    bool precise = input.role == Role::precise && type == DType::bf16;
    input.values = input.values.to(precise ? DType::f32 : type).to(DType::f64);
  }
  return inputs;
}

// Gradients agree with finite differences in f64.
inline void check_case_gradients(const OpCase& op) {
  for_each_size(op, [](const OpCase& op, const std::vector<OpInput>& inputs) {
    check_gradients(inputs, op.function, op.tolerance.finite_difference);
  });
}

// f32 and bf16 agree with f64, outputs and gradients.
inline void check_case_types(const OpCase& op) {
  for_each_size(op, [](const OpCase& op, const std::vector<OpInput>& inputs) {
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

// Gradients are added where a buffer is filled, and written where it is not.
inline void check_case_accumulation(const OpCase& op) {
  for_each_size(op, [](const OpCase& op, const std::vector<OpInput>& inputs) {
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

}  // namespace adagate::test
