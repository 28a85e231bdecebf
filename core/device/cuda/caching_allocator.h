// Caching allocator of one GPU: a warm training step asks CUDA for nothing, since cudaMalloc and
// cudaFree wait for the whole device.
#pragma once

#include <array>
#include <cstddef>
#include <cuda_runtime_api.h>
#include <map>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "core/device/allocator.h"
#include "core/device/memory_block.h"
#include "core/device/size_classes.h"

namespace adagate::cuda {

// A block belongs to the stream that got it last. Released by it, it may go to the same stream
// again at once: what is queued next runs behind what still uses it. Another stream that takes the
// block waits, on the device, for what the first has queued. Thread-safe.
class CachingAllocator {
 public:
  explicit CachingAllocator(int device) : device_(device) {}
  CachingAllocator(const CachingAllocator&) = delete;
  CachingAllocator& operator=(const CachingAllocator&) = delete;

  // 256-byte aligned, contents undefined. Throws Error naming the sizes when memory is exhausted.
  MemoryBlock allocate(size_t bytes, cudaStream_t stream);
  // `stream`: the caller's, which may have used the block besides the one that got it.
  void release(MemoryBlock block, cudaStream_t stream);

  AllocatorStats stats();

 private:
  using FreeBlocks = std::array<std::vector<MemoryBlock>, kSizeClasses>;  // by class

  MemoryBlock take_free(FreeBlocks& blocks, size_t size);
  MemoryBlock take_from_others(cudaStream_t stream, size_t size);
  MemoryBlock ask_cuda(size_t size, size_t bytes, cudaStream_t stream);
  MemoryBlock cut_slab(size_t size, cudaStream_t stream);
  void* cuda_malloc(size_t size, size_t bytes);
  int64_t trim();
  void wait_for(cudaStream_t waiting, cudaStream_t done);

  const int device_;
  std::mutex mutex_;
  std::map<cudaStream_t, FreeBlocks> free_;         // by the stream behind whose work they are free
  std::unordered_map<void*, cudaStream_t> owners_;  // of blocks in use
  AllocatorStats stats_;
};

}  // namespace adagate::cuda
