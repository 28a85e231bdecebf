// Buffers as the collectives move them.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/base/dtype.h"

namespace adagate {

inline int64_t bytes_of(int64_t count, DType dtype) {
  return count * static_cast<int64_t>(size_of(dtype));
}

// Either may be null when there is nothing to copy, and both the same when it is there already.
inline void copy_bytes(void* to, const void* from, int64_t bytes) {
  if (bytes > 0 && to != from) std::memcpy(to, from, static_cast<size_t>(bytes));
}

}  // namespace adagate
