// One entry of the list of ops (op_cases.h): what the tests, the CPU/CUDA comparison and the
// benchmark need to know of an op.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/base/rng.h"
#include "core/tensor/tensor.h"

namespace adagate::test {

enum class Role : uint8_t {
  constant,   // not differentiated; integers keep their type
  value,      // an activation: gradient of its own type
  parameter,  // gradient in a fixed f32 buffer (f64 for f64), which += and = are checked on
  precise     // a parameter that stays f32 where the others are bf16 (norms, gates)
};

struct OpInput {
  Tensor values;  // f64, or an integer tensor
  Role role = Role::value;
};

// Largest error against f64, relative to the largest magnitude in the result.
struct OpTolerance {
  double f32 = 2e-6, bf16 = 2e-2;
  double finite_difference = 1e-6;  // f64 tape against finite differences
};

struct OpCase {
  std::string name;
  std::function<std::vector<OpInput>(int64_t n)> inputs;  // for a size such as n rows
  std::function<std::vector<Tensor>(std::span<const Tensor>)> function;
  OpTolerance tolerance = {};
};

// Standard normal numbers times `scale`; `salt` tells inputs of one case apart.
inline Tensor random_normal(const Shape& shape, uint64_t salt, double scale = 1.0) {
  Tensor x = Tensor::empty(shape, DType::f64);
  Rng rng(17, RngStream::test, salt, static_cast<uint64_t>(x.numel()));
  for (int64_t i = 0; i < x.numel(); ++i) {
    x.data<double>()[i] = scale * rng.normal(static_cast<uint64_t>(i));
  }
  return x;
}

// Uniform integers in [low, high), i32.
inline Tensor random_integers(const Shape& shape, uint64_t salt, int32_t low, int32_t high) {
  Tensor x = Tensor::empty(shape, DType::i32);
  Rng rng(23, RngStream::test, salt, static_cast<uint64_t>(x.numel()));
  for (int64_t i = 0; i < x.numel(); ++i) {
    x.data<int32_t>()[i] = low + static_cast<int32_t>(rng.uniform(static_cast<uint64_t>(i)) *
                                                      static_cast<float>(high - low));
  }
  return x;
}

}  // namespace adagate::test
