// Working memory of one kernel call, from the caching allocator.
#pragma once

#include <cstddef>

#include "core/device/allocator.h"

namespace adagate {

class CpuBuffer {
 public:
  explicit CpuBuffer(size_t bytes) : block_(bytes ? allocate_cpu(bytes) : MemoryBlock{}) {}
  ~CpuBuffer() {
    if (block_.data) release_cpu(block_);
  }
  CpuBuffer(const CpuBuffer&) = delete;
  CpuBuffer& operator=(const CpuBuffer&) = delete;

  template <class T = void>
  T* as() const {
    return static_cast<T*>(block_.data);
  }

 private:
  MemoryBlock block_;
};

}  // namespace adagate
