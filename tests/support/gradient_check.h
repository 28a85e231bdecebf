// Gradients of the tape against central finite differences in f64, for any function of several
// tensors, weighted with a random cotangent.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <span>
#include <vector>

#include "core/autograd/tape.h"
#include "tests/support/catch.h"
#include "tests/support/op_case.h"

namespace adagate::test {

using OpFunction = std::function<std::vector<Tensor>(std::span<const Tensor>)>;

struct Evaluation {
  std::vector<Tensor> outputs;    // f64
  std::vector<Tensor> gradients;  // f64, one per input; empty where none is wanted
};

inline bool differentiable(const OpInput& input) {
  return input.role != Role::constant && is_floating(input.values.dtype());
}

// The random weights of output `index`, rounded so that every type holds them exactly. A loss, a
// tensor of shape [1], has weight 1.
inline Tensor cotangent(const Tensor& output, size_t index) {
  if (output.shape() == Shape{1}) return Tensor::full({1}, DType::f64, 1.0);
  return random_normal(output.shape(), 1000 + index).to(DType::bf16).to(DType::f64);
}

// Runs the function with inputs of `type` and its backward pass with the cotangents. `prefill`: the
// gradients hold this value before, and must be added to. `device`: where it runs; results are the
// CPU's again.
inline Evaluation evaluate(const std::vector<OpInput>& inputs, const OpFunction& function,
                           DType type, double prefill = 0.0, Device device = {}) {
  std::vector<Tensor> arguments;
  for (const OpInput& input : inputs) {
    bool floating = is_floating(input.values.dtype());
    bool precise = input.role == Role::precise && type == DType::bf16;
    Tensor x = floating ? input.values.to(precise ? DType::f32 : type).clone() : input.values;
    x = x.to(device);
    if (differentiable(input)) {
      DType gradient_type = x.dtype() == DType::f64 ? DType::f64 : DType::f32;
      auto slot =
          input.role == Role::value
              ? std::make_shared<GradSlot>()
              // A fixed buffer starts with garbage: the first contribution overwrites.
              : std::make_shared<GradSlot>(Tensor::full(x.shape(), gradient_type, 1e30, device));
      if (prefill != 0) slot->add(Tensor::full(x.shape(), x.dtype(), prefill, device));
      x.set_slot(slot);
    }
    arguments.push_back(x);
  }
  auto seed = [&](const Tensor& output, size_t index) {
    return cotangent(output, index).to(output.dtype()).to(device);
  };
  Tape tape;
  std::vector<Tensor> outputs;
  {
    Recording on(tape);
    outputs = function(arguments);
  }
  Evaluation result;
  const Tensor* root = nullptr;
  for (size_t i = 0; i < outputs.size(); ++i) {
    result.outputs.push_back(outputs[i].detach().to(Device{}).to(DType::f64));
    if (!outputs[i].requires_grad()) continue;
    if (root) outputs[i].slot()->add(seed(outputs[i], i));
    if (!root) root = &outputs[i];
  }
  if (root) {
    auto index = static_cast<size_t>(root - outputs.data());
    // A loss wants to know that its gradient is 1.
    if (root->shape() == Shape{1})
      tape.backward(*root);
    else
      tape.backward(*root, seed(*root, index));
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    bool wanted = differentiable(inputs[i]);
    INFO("input " << i);
    if (wanted) REQUIRE(arguments[i].slot()->filled());
    result.gradients.push_back(wanted ? arguments[i].slot()->value().to(Device{}).to(DType::f64)
                                      : Tensor());
  }
  return result;
}

inline double dot(const Tensor& a, const Tensor& b) {
  double sum = 0;
  for (int64_t i = 0; i < a.numel(); ++i) sum += a.data<double>()[i] * b.data<double>()[i];
  return sum;
}

// sum over outputs of <cotangent, f(inputs)>; only outputs that carry a gradient count.
inline double weighted_outputs(const std::vector<OpInput>& inputs, const OpFunction& function,
                               const std::vector<bool>& counts) {
  NoRecording off;
  std::vector<Tensor> arguments;
  for (const OpInput& input : inputs) arguments.push_back(input.values);
  auto outputs = function(arguments);
  double sum = 0;
  for (size_t i = 0; i < outputs.size(); ++i)
    if (counts[i]) sum += dot(outputs[i].to(DType::f64), cotangent(outputs[i], i));
  return sum;
}

// Every element for small inputs, six random directions for large ones.
inline void check_gradients(const std::vector<OpInput>& inputs, const OpFunction& function,
                            double tolerance = 1e-6) {
  Evaluation tape = evaluate(inputs, function, DType::f64);
  std::vector<bool> counts;
  {
    Tape probe;
    Recording on(probe);
    std::vector<Tensor> arguments;
    for (const OpInput& input : inputs) {
      arguments.push_back(input.values);
      if (differentiable(input)) arguments.back().set_slot(std::make_shared<GradSlot>());
    }
    for (const Tensor& y : function(arguments)) counts.push_back(y.requires_grad());
  }
  constexpr double kStep = 1e-5;
  constexpr int64_t kElementwise = 40;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!differentiable(inputs[i]) || inputs[i].values.numel() == 0) continue;
    int64_t n = inputs[i].values.numel();
    bool elementwise = n <= kElementwise;
    auto along = [&](const Tensor& direction, double step) {
      auto moved = inputs;
      moved[i].values = inputs[i].values.clone();
      for (int64_t j = 0; j < n; ++j)
        moved[i].values.data<double>()[j] += step * direction.data<double>()[j];
      return weighted_outputs(moved, function, counts);
    };
    double norm = std::sqrt(dot(tape.gradients[i], tape.gradients[i]));
    for (int64_t trial = 0; trial < (elementwise ? n : 6); ++trial) {
      Tensor direction =
          elementwise ? Tensor::zeros(inputs[i].values.shape(), DType::f64)
                      : random_normal(inputs[i].values.shape(), 2000 + static_cast<uint64_t>(trial),
                                      1.0 / std::sqrt(static_cast<double>(n)));
      if (elementwise) direction.data<double>()[trial] = 1.0;
      double numeric = (along(direction, kStep) - along(direction, -kStep)) / (2 * kStep);
      double analytic = dot(tape.gradients[i], direction);
      INFO("input " << i << ", direction " << trial << ": tape " << analytic
                    << ", finite differences " << numeric);
      CHECK(std::abs(numeric - analytic) <= tolerance * (1.0 + norm));
    }
  }
}

// Largest difference, relative to the largest magnitude of `expected`.
inline double relative_error(const Tensor& actual, const Tensor& expected) {
  double largest = 0, difference = 0;
  REQUIRE(actual.numel() == expected.numel());
  Tensor a = actual.to(DType::f64), b = expected.to(DType::f64);
  for (int64_t i = 0; i < a.numel(); ++i) {
    double d = std::abs(a.data<double>()[i] - b.data<double>()[i]);
    if (!(d <= difference)) difference = d;  // NaN sticks
    largest = std::max(largest, std::abs(b.data<double>()[i]));
  }
  return difference == 0 ? 0 : difference / std::max(largest, 1e-30);
}

}  // namespace adagate::test
