// The queue of one thread on one GPU: what launch(CudaStream&, ...) works with.
#pragma once

#include <cuda_runtime_api.h>
#include <memory>

#include "core/device/cuda/caching_allocator.h"
#include "core/device/cuda/staging.h"

namespace adagate {

namespace cuda {
class Blas;
}  // namespace cuda

// Lives as long as the process, so that blocks of memory can name it.
class CudaStream {
 public:
  CudaStream(int device, cuda::CachingAllocator& allocator);
  ~CudaStream() = delete;
  CudaStream(const CudaStream&) = delete;
  CudaStream& operator=(const CudaStream&) = delete;

  cudaStream_t handle() const { return handle_; }
  int device() const { return device_; }

  // cuBLASLt with this stream's workspace and plans; made at the first call
  // (core/ops/cuda/blas.cpp).
  cuda::Blas& blas();
  cuda::Staging& staging() { return staging_; }

  // Device memory for the launches that follow, contents undefined, 256-byte aligned. It may be
  // given back as soon as they are queued: whoever gets it next is queued behind them.
  MemoryBlock allocate(size_t bytes) { return allocator_.allocate(bytes, handle_); }
  void release(MemoryBlock block) { allocator_.release(block, handle_); }

 private:
  int device_;
  cuda::CachingAllocator& allocator_;
  cudaStream_t handle_;
  cuda::Staging staging_;
  cuda::Blas* blas_ = nullptr;
};

namespace cuda {

// Memory of a few launches, such as the partial sums between two.
template <class T>
class Scratch {
 public:
  Scratch(CudaStream& stream, int64_t n)
      : stream_(stream), block_(stream.allocate(static_cast<size_t>(n) * sizeof(T))) {}
  ~Scratch() { stream_.release(block_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  T* data() const { return static_cast<T*>(block_.data); }

 private:
  CudaStream& stream_;
  MemoryBlock block_;
};

}  // namespace cuda
}  // namespace adagate
