// Element types, and the one dispatch from a run-time type to a template.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include "core/base/bfloat16.h"
#include "core/base/error.h"

namespace adagate {

enum class DType : uint8_t { f32, bf16, f64, i32, i64, u8 };

constexpr size_t size_of(DType t) {
  constexpr size_t sizes[] = {4, 2, 8, 4, 8, 1};
  return sizes[static_cast<size_t>(t)];
}
constexpr std::string_view name_of(DType t) {
  switch (t) {
    case DType::f32:
      return "f32";
    case DType::bf16:
      return "bf16";
    case DType::f64:
      return "f64";
    case DType::i32:
      return "i32";
    case DType::i64:
      return "i64";
    case DType::u8:
      return "u8";
  }
  return "?";
}
constexpr bool is_floating(DType t) {
  return t == DType::f32 || t == DType::bf16 || t == DType::f64;
}

template <class T>
constexpr DType dtype_of() {
  if constexpr (std::is_same_v<T, float>)
    return DType::f32;
  else if constexpr (std::is_same_v<T, bfloat16>)
    return DType::bf16;
  else if constexpr (std::is_same_v<T, double>)
    return DType::f64;
  else if constexpr (std::is_same_v<T, int32_t>)
    return DType::i32;
  else if constexpr (std::is_same_v<T, int64_t>)
    return DType::i64;
  else {
    static_assert(std::is_same_v<T, uint8_t>, "no DType for this type");
    return DType::u8;
  }
}

// Type a kernel computes and accumulates in: f64 for f64, f32 otherwise.
template <class T>
using Compute = std::conditional_t<std::is_same_v<T, double>, double, float>;
constexpr DType compute_dtype(DType t) {
  return t == DType::f64 ? DType::f64 : DType::f32;
}

// Calls f(T{}) with the C++ type of a floating dtype.
template <class F>
decltype(auto) visit_floating(DType t, F&& f) {
  switch (t) {
    case DType::f32:
      return f(float{});
    case DType::bf16:
      return f(bfloat16{});
    case DType::f64:
      return f(double{});
    default:
      fail("expected a floating-point tensor, got {}", name_of(t));
  }
}

}  // namespace adagate
