// A piece of a device's memory as its allocator hands it out.
#pragma once

#include <cstddef>

namespace adagate {

struct MemoryBlock {
  void* data = nullptr;
  size_t capacity = 0;  // at least the bytes asked for
};

}  // namespace adagate
