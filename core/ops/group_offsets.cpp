#include "core/ops/group_offsets.h"

#include <numeric>

namespace adagate {

GroupOffsets::GroupOffsets(Tensor on_device, std::vector<int64_t> on_host, int64_t all_rows)
    : device(std::move(on_device)), host(std::move(on_host)), rows(all_rows) {
  check(host.empty() || (host.front() == 0 && host.back() == rows),
        "offsets of {} groups from {} to {}: 0 to the {} rows are expected", groups(),
        host.empty() ? 0 : host.front(), host.empty() ? 0 : host.back(), rows);
}

GroupOffsets::GroupOffsets(std::vector<int64_t> numbers, Device where)
    : GroupOffsets(Tensor::from(std::span<const int64_t>(numbers),
                                {static_cast<int64_t>(numbers.size())}, where),
                   numbers, numbers.empty() ? 0 : numbers.back()) {}

std::vector<int64_t> offsets_of(std::span<const int64_t> counts) {
  std::vector<int64_t> offsets(counts.size() + 1);
  std::partial_sum(counts.begin(), counts.end(), offsets.begin() + 1);
  return offsets;
}

}  // namespace adagate
