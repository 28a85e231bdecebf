// A buffer that is cut into one part per rank, in rank order.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace adagate {

// Where each part begins, and behind the last: where they all end ([ranks + 1], in elements).
// Throws Error, which names `call`, unless there is one count for each rank and none is negative.
std::vector<int64_t> part_starts(std::span<const int64_t> counts, int ranks, const char* call);

}  // namespace adagate
