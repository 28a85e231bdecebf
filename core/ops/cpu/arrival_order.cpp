// One pass over the rows, in the order of the result: eight bytes each, on one thread.
#include "core/ops/arrival_order.h"

#include <numeric>

namespace adagate {

void launch(CpuStream&, const ArrivalOrderArgs& a) {
  // Where the rows of (source, group) arrive.
  std::vector<int64_t> begin(static_cast<size_t>(a.sources * a.groups));
  std::exclusive_scan(a.counts, a.counts + begin.size(), begin.begin(), int64_t{0});
  int64_t sorted = 0;
  a.offsets[0] = 0;
  for (int64_t g = 0; g < a.groups; ++g) {
    for (int64_t s = 0; s < a.sources; ++s) {
      int64_t i = s * a.groups + g, first = begin[static_cast<size_t>(i)];
      for (int64_t r = first; r < first + a.counts[i]; ++r, ++sorted) {
        a.to_sorted[sorted] = static_cast<int32_t>(r);
        a.to_arrived[r] = static_cast<int32_t>(sorted);
      }
    }
    a.offsets[g + 1] = sorted;
  }
}

}  // namespace adagate
