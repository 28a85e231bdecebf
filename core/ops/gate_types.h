// The types that a gate computes in: f32 whatever the type of x, or f64 for gradient checks.
#pragma once

#include "core/base/dtype.h"

namespace adagate {

// Calls f with a value of the type of scores.
template <class F>
void visit_gate_type(DType type, F&& f) {
  if (type == DType::f64) return f(double{});
  check(type == DType::f32, "routing: scores of {}, f32 or f64 expected", name_of(type));
  f(float{});
}

// Calls f with values of the types of x and of the gate.
template <class F>
void visit_gate(DType x, DType gate, F&& f) {
  if (gate == DType::f64) {
    check(x == DType::f64, "gate: an f64 weight needs an f64 x, not {}", name_of(x));
    return f(double{}, double{});
  }
  if (x == DType::bf16) return f(bfloat16{}, float{});
  check(x == DType::f32, "gate: x is {}, f32 or bf16 expected", name_of(x));
  f(float{}, float{});
}

}  // namespace adagate
