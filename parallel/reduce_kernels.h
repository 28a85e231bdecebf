// Sums over ranks: the one place that fixes their order, so that every transport gives the same
// bits.
#pragma once

#include <cstdint>
#include <span>
#include <utility>

#include "core/base/dtype.h"
#include "parallel/communicator.h"

namespace adagate {

// destinations[*][i] = sources[0][i] op sources[1][i] op ..., left to right, for i in [0, count).
// bf16 accumulates in f32 and rounds once. max and min keep a NaN. A destination may be one of the
// sources; other overlaps are not allowed. Large counts use the calling thread's OpenMP team.
void reduce_in_order(std::span<const void* const> sources, std::span<void* const> destinations,
                     int64_t count, DType dtype, ReduceOp op);

// Elements [first, second) that `rank` of `size` sums: parts begin at multiples of 256 elements, so
// that no two ranks write to one cache line of an aligned buffer.
inline std::pair<int64_t, int64_t> slice_of(int64_t count, int rank, int size) {
  constexpr int64_t kUnit = 256;
  int64_t units = (count + kUnit - 1) / kUnit;
  auto at = [&](int r) { return std::min(count, units * r / size * kUnit); };
  return {at(rank), at(rank + 1)};
}

}  // namespace adagate
