// What must hold for a layer: the names of its parameters, its gradients against finite differences
// in f64, and the same output from the same seed.
#pragma once

#include <set>
#include <string>

#include "core/nn/parameter_store.h"
#include "tests/support/gradient_check.h"

namespace adagate::test {

// One value's gradient against central differences of <cotangent, forward(x)>.
template <class Loss>
void check_against_differences(const std::string& name, const Tensor& values,
                               const Tensor& gradient, Loss&& loss, double tolerance) {
  constexpr double kStep = 1e-5;
  constexpr int64_t kTrials = 12;  // elements looked at, evenly spread over larger tensors
  double norm = std::sqrt(dot(gradient, gradient));
  int64_t n = values.numel(), stride = std::max<int64_t>(1, n / kTrials);
  for (int64_t i = 0; i < n; i += stride) {
    double& element = values.data<double>()[i];
    double before = element;
    element = before + kStep;
    double above = loss();
    element = before - kStep;
    double below = loss();
    element = before;
    double numeric = (above - below) / (2 * kStep), analytic = gradient.data<double>()[i];
    INFO(name << "[" << i << "]: tape " << analytic << ", finite differences " << numeric);
    CHECK(std::abs(numeric - analytic) <= tolerance * (1.0 + norm));
  }
}

// `forward(layer, x)` is tried at x, f64. The layer must not be in a store yet.
template <class Layer, class Forward>
void expect_layer_contract(Layer& layer, const std::set<std::string>& names, const Tensor& x,
                           Forward&& forward, double tolerance = 1e-6) {
  ParameterStore store(layer, {.master = DType::f64, .compute = DType::f64, .allocate_grad = {}});
  store.initialize(3);
  std::set<std::string> found;
  for (Parameter* p : store.parameters()) {
    found.insert(p->name());
    // Biases and norms start at 0 and 1, where mistakes hide.
    Tensor noise = random_normal(p->spec().shape, 77 + static_cast<uint64_t>(p->offset()), 0.1);
    for (int64_t i = 0; i < p->numel(); ++i)
      p->master().template data<double>()[i] += noise.data<double>()[i];
  }
  CHECK(found == names);

  Tensor input = x.clone();
  input.set_slot(std::make_shared<GradSlot>());
  store.clear_gradients();
  Tape tape;
  Tensor y;
  {
    Recording on(tape);
    y = forward(layer, input);
  }
  tape.backward(y, cotangent(y, 0));
  auto loss = [&] {
    NoRecording off;
    return dot(forward(layer, input.detach()), cotangent(y, 0));
  };
  REQUIRE(input.slot()->filled());
  check_against_differences("x", input, input.slot()->value(), loss, tolerance);
  for (Parameter* p : store.parameters()) {
    INFO(p->name());
    REQUIRE(p->tensor().slot()->filled());
    check_against_differences(p->name(), p->master(), p->grad(), loss, tolerance);
  }

  store.initialize(3);
  Tensor first = forward(layer, x).clone();
  store.initialize(3);
  CHECK(forward(layer, x).to_doubles() == first.to_doubles());
}

}  // namespace adagate::test
