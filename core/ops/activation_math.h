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

// T: a number, or a vector of numbers where vector_math::Functions has them.
namespace activation {

template <class T>
using ScalarOf = typename vector_math::Functions<T>::Scalar;
constexpr double kLog2OfE = 1.4426950408889634;

struct Identity {
  template <class T>
  ADAGATE_HD static T value(T x) {
    return x;
  }
  template <class T>
  ADAGATE_HD static T derivative(T) {
    return T{} + ScalarOf<T>(1);
  }
};

// x/2 (1 + tanh u) = x sigmoid(2u) = x / (1 + exp(-2u)), u = sqrt(2/pi) (x + 0.044715 x^3)
struct Gelu {
  static constexpr double kTwo = 1.5957691216057308;  // 2 sqrt(2/pi)

  template <class T>
  ADAGATE_HD static T value(T x) {
    return x / (ScalarOf<T>(1) + exp_minus_2u(x));
  }
  template <class T>
  ADAGATE_HD static T derivative(T x) {
    using S = ScalarOf<T>;
    // It is 0 or 1 from here on, in f64 too; further out s (1 - s) is 0 where x * x is infinite.
    const T last = T{} + S(30);
    x = x > last ? last : (x < -last ? -last : x);  // NaN stays NaN
    T slope = S(kTwo) + S(3 * 0.044715 * kTwo) * (x * x);
    T s = S(1) / (S(1) + exp_minus_2u(x));
    return s + x * s * (S(1) - s) * slope;
  }

 private:
  template <class T>
  ADAGATE_HD static T exp_minus_2u(T x) {
    using S = ScalarOf<T>;
    T power = S(-kTwo * kLog2OfE) + S(-0.044715 * kTwo * kLog2OfE) * (x * x);
    return vector_math::Functions<T>::exp2(x * power);
  }
};

// x Phi(x)
struct GeluErf {
  template <class T>
  ADAGATE_HD static T value(T x) {
    return x * vector_math::Functions<T>::normal_cdf(x);
  }
  template <class T>
  ADAGATE_HD static T derivative(T x) {
    using S = ScalarOf<T>;
    using F = vector_math::Functions<T>;
    T density = S(0.39894228040143268) * F::exp2(S(-0.5 * kLog2OfE) * x * x);
    return F::normal_cdf(x) + x * density;
  }
};

struct Relu {
  template <class T>
  ADAGATE_HD static T value(T x) {
    return x < ScalarOf<T>(0) ? T{} : x;  // NaN stays NaN
  }
  template <class T>
  ADAGATE_HD static T derivative(T x) {
    return x > ScalarOf<T>(0) ? T{} + ScalarOf<T>(1) : T{};
  }
};

struct Silu {
  template <class T>
  ADAGATE_HD static T value(T x) {
    using S = ScalarOf<T>;
    return x / (S(1) + vector_math::Functions<T>::exp2(S(-kLog2OfE) * x));
  }
  template <class T>
  ADAGATE_HD static T derivative(T x) {
    using S = ScalarOf<T>;
    T s = S(1) / (S(1) + vector_math::Functions<T>::exp2(S(-kLog2OfE) * x));
    return s + x * s * (S(1) - s);
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
