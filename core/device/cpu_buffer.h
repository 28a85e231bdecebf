// Working memory of one kernel call, from the caching allocator.
#pragma once

#include <cstddef>

#include "core/device/allocator.h"

namespace adagate {

class CpuBuffer {
 public:
  explicit CpuBuffer(size_t bytes) : data_(bytes ? allocate_cpu(bytes) : nullptr), bytes_(bytes) {}
  ~CpuBuffer() {
    if (data_) release_cpu(data_, bytes_);
  }
  CpuBuffer(const CpuBuffer&) = delete;
  CpuBuffer& operator=(const CpuBuffer&) = delete;

  template <class T = void>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_;
  size_t bytes_;
};

}  // namespace adagate
