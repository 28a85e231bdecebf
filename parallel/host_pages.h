// Zeroed pages of ordinary memory, backed by huge pages where the system gives them.
#pragma once

#include <cstddef>
#include <memory>

namespace adagate {

constexpr size_t kHugePage = size_t{2} << 20;

inline size_t round_up(size_t bytes, size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

// At least `bytes` (may be 0) of zeroed memory. Throws Error when there is not enough.
std::shared_ptr<void> allocate_host_pages(size_t bytes);

}  // namespace adagate
