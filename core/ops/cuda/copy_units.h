// Bytes that are moved as they are, in units as large as their addresses allow.
#pragma once

#include <cstdint>

#include "core/device/cuda/kernel.h"

namespace adagate::cuda {

// Calls f with a value of the largest type whose size divides `bytes` and all addresses.
template <class F, class... Pointers>
void visit_unit(int64_t bytes, F&& f, Pointers... pointers) {
  const uintptr_t all =
      (static_cast<uintptr_t>(bytes) | ... | reinterpret_cast<uintptr_t>(pointers));
  if (all % sizeof(uint4) == 0) return f(uint4{});
  if (all % sizeof(uint32_t) == 0) return f(uint32_t{});
  if (all % sizeof(uint16_t) == 0) return f(uint16_t{});
  f(uint8_t{});
}

// to[i] = from[i] for i in [first, units), each `step`-th; four are on their way at a time.
template <class Unit>
__device__ inline void copy_units(Unit* __restrict__ to, const Unit* __restrict__ from,
                                  int64_t first, int64_t step, int64_t units) {
  constexpr int kInFlight = 4;
  for (int64_t i = first; i < units; i += kInFlight * step) {
    Unit values[kInFlight];
#pragma unroll
    for (int j = 0; j < kInFlight; ++j)
      if (i + j * step < units) values[j] = from[i + j * step];
#pragma unroll
    for (int j = 0; j < kInFlight; ++j)
      if (i + j * step < units) to[i + j * step] = values[j];
  }
}

}  // namespace adagate::cuda
