// Element types, integers included, and conversions between them.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include "core/base/dtype.h"

namespace adagate {

// Calls f with a value of the element type.
template <class F>
decltype(auto) visit_any(DType t, F&& f) {
  switch (t) {
    case DType::i32:
      return f(int32_t{});
    case DType::i64:
      return f(int64_t{});
    case DType::u8:
      return f(uint8_t{});
    default:
      return visit_floating(t, f);
  }
}

// to[i] = from[i]
template <class To, class From>
void convert(To* to, const From* from, int64_t n) {
#pragma omp parallel for simd schedule(static) if (n > (1 << 16))
  for (int64_t i = 0; i < n; ++i) {
    if constexpr (std::is_same_v<To, bfloat16>) {
      to[i] = bfloat16(static_cast<float>(from[i]));
    } else if constexpr (std::is_same_v<From, bfloat16>) {
      to[i] = static_cast<To>(static_cast<float>(from[i]));
    } else {
      to[i] = static_cast<To>(from[i]);
    }
  }
}

}  // namespace adagate
