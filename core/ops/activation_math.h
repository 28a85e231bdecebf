// The activations as scalar functions with their derivatives, for CPU loops and CUDA kernels alike.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "core/base/error.h"
#include "core/base/vector_math.h"

namespace adagate {

// gelu is the tanh form of GPT-2, gelu_erf the exact one of BERT. swiglu takes two inputs:
// silu(gate) * up.
enum class Activation : uint8_t { identity, gelu, gelu_erf, relu, silu, swiglu };
constexpr std::array<std::string_view, 6> kActivationNames = {"identity", "gelu", "gelu_erf",
                                                              "relu",     "silu", "swiglu"};
constexpr std::string_view name_of(Activation a) {
  return kActivationNames[static_cast<size_t>(a)];
}
// Throws Error with the list of names when there is none such.
inline Activation activation_of(std::string_view name) {
  for (size_t i = 0; i < kActivationNames.size(); ++i)
    if (kActivationNames[i] == name) return static_cast<Activation>(i);
  fail("no activation is called '{}'; there are {}", name, fmt::join(kActivationNames, ", "));
}

namespace activation {

struct Identity {
  template <class T>
  ADAGATE_HD static T value(T x) {
    return x;
  }
  template <class T>
  ADAGATE_HD static T derivative(T) {
    return T(1);
  }
};

// x/2 (1 + tanh u) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3)
struct Gelu {
  template <class T>
  ADAGATE_HD static T value(T x) {
    T twice_u = T(1.5957691216057308) * (x + T(0.044715) * x * x * x);
    return x * vector_math::sigmoid(twice_u);
  }
  template <class T>
  ADAGATE_HD static T derivative(T x) {
    T twice_u = T(1.5957691216057308) * (x + T(0.044715) * x * x * x);
    T slope = T(1.5957691216057308) * (T(1) + T(0.134145) * x * x);
    T s = vector_math::sigmoid(twice_u);
    return s + x * s * (T(1) - s) * slope;
  }
};

// x Phi(x)
struct GeluErf {
  template <class T>
  ADAGATE_HD static T value(T x) {
    return T(0.5) * x * (T(1) + vector_math::erf(x * T(0.70710678118654752)));
  }
  template <class T>
  ADAGATE_HD static T derivative(T x) {
    T density = T(0.39894228040143268) * vector_math::exp(T(-0.5) * x * x);
    return T(0.5) * (T(1) + vector_math::erf(x * T(0.70710678118654752))) + x * density;
  }
};

struct Relu {
  template <class T>
  ADAGATE_HD static T value(T x) {
    return x < T(0) ? T(0) : x;  // NaN stays NaN
  }
  template <class T>
  ADAGATE_HD static T derivative(T x) {
    return x > T(0) ? T(1) : T(0);
  }
};

struct Silu {
  template <class T>
  ADAGATE_HD static T value(T x) {
    return x * vector_math::sigmoid(x);
  }
  template <class T>
  ADAGATE_HD static T derivative(T x) {
    T s = vector_math::sigmoid(x);
    return s + x * s * (T(1) - s);
  }
};

}  // namespace activation

// Calls f with the functor of a one-input activation (swiglu is made of Silu by the kernels).
template <class F>
decltype(auto) visit_activation(Activation a, F&& f) {
  switch (a) {
    case Activation::gelu:
      return f(activation::Gelu{});
    case Activation::gelu_erf:
      return f(activation::GeluErf{});
    case Activation::relu:
      return f(activation::Relu{});
    case Activation::silu:
    case Activation::swiglu:
      return f(activation::Silu{});
    case Activation::identity:
      break;
  }
  return f(activation::Identity{});
}

}  // namespace adagate
