#include "parallel/parts.h"

#include "core/base/counted.h"
#include "core/base/error.h"

namespace adagate {

std::vector<int64_t> part_starts(std::span<const int64_t> counts, int ranks, const char* call) {
  check(counts.size() == static_cast<size_t>(ranks), "{}: {} counts in a group of {}", call,
        counts.size(), counted(ranks, "rank"));
  std::vector<int64_t> starts{0};
  for (int64_t count : counts) {
    check(count >= 0, "{}: a count of {}; it must not be negative", call, count);
    starts.push_back(starts.back() + count);
  }
  return starts;
}

}  // namespace adagate
