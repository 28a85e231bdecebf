#include "core/device/cuda/caching_allocator.h"

#include "core/device/cuda/check.h"

namespace adagate::cuda {
namespace {

constexpr size_t kAlignment = 256;  // cudaMalloc's
// Smaller blocks are cut from slabs of this size, which are never given back: cudaMalloc takes no
// less than 2 MiB from the device for anything.
constexpr size_t kSlab = size_t{2} << 20;
constexpr size_t kSmall = kSlab / 2;

double mebibytes(int64_t bytes) {
  return static_cast<double>(bytes) / 1048576.0;
}

}  // namespace

MemoryBlock CachingAllocator::allocate(size_t bytes, cudaStream_t stream) {
  size_t size = size_class(bytes, kAlignment);
  std::lock_guard lock(mutex_);
  MemoryBlock block = take_free(free_[stream], size);
  if (!block.data) block = take_from_others(stream, size);
  if (!block.data) block = ask_cuda(size, bytes, stream);
  owners_[block.data] = stream;
  stats_.allocations++;
  stats_.bytes_handed_out += static_cast<int64_t>(bytes);
  stats_.bytes_in_use += static_cast<int64_t>(block.capacity);
  stats_.peak_bytes_in_use = std::max(stats_.peak_bytes_in_use, stats_.bytes_in_use);
  return block;
}

void CachingAllocator::release(MemoryBlock block, cudaStream_t stream) {
  std::lock_guard lock(mutex_);
  auto owner = owners_.find(block.data);
  check(owner != owners_.end(), "CUDA: a block is released that is not in use");
  // Released by a thread that did not make it (a tensor handed over): behind the work of both.
  if (owner->second != stream) wait_for(stream, owner->second);
  owners_.erase(owner);
  stats_.bytes_in_use -= static_cast<int64_t>(block.capacity);
  free_[stream][class_index(block.capacity)].push_back(block);
}

AllocatorStats CachingAllocator::stats() {
  std::lock_guard lock(mutex_);
  return stats_;
}

MemoryBlock CachingAllocator::take_free(FreeBlocks& blocks, size_t size) {
  size_t first = class_index(size), last = std::min(first + kLargerClasses, kSizeClasses - 1);
  for (size_t i = first; i <= last; ++i) {
    if (blocks[i].empty()) continue;
    MemoryBlock block = blocks[i].back();
    blocks[i].pop_back();
    return block;
  }
  return {};
}

MemoryBlock CachingAllocator::take_from_others(cudaStream_t stream, size_t size) {
  for (auto& [other, blocks] : free_) {
    if (other == stream) continue;
    MemoryBlock block = take_free(blocks, size);
    if (!block.data) continue;
    wait_for(stream, other);
    return block;
  }
  return {};
}

MemoryBlock CachingAllocator::ask_cuda(size_t size, size_t bytes, cudaStream_t stream) {
  if (size <= kSmall) return cut_slab(size, stream);
  return {cuda_malloc(size, bytes), size};
}

MemoryBlock CachingAllocator::cut_slab(size_t size, cudaStream_t stream) {
  auto* slab = static_cast<std::byte*>(cuda_malloc(kSlab, size));
  auto& free = free_[stream][class_index(size)];
  for (size_t at = size; at + size <= kSlab; at += size) free.push_back({slab + at, size});
  return {slab, size};
}

void* CachingAllocator::cuda_malloc(size_t size, size_t bytes) {
  void* data = nullptr;
  cudaError_t status = cudaMalloc(&data, size);
  if (status == cudaErrorMemoryAllocation && trim() > 0) {
    cudaGetLastError();  // forgets the failure, which the next check would tell again
    status = cudaMalloc(&data, size);
  }
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    fail(
        "out of memory on GPU {}: {:.1f} MiB wanted with {:.1f} MiB in use and {:.1f} of {:.1f} "
        "MiB free; use a smaller batch, more accumulation or train.activation_checkpointing: block",
        device_, mebibytes(static_cast<int64_t>(bytes)), mebibytes(stats_.bytes_in_use),
        mebibytes(static_cast<int64_t>(free)), mebibytes(static_cast<int64_t>(total)));
  }
  ADAGATE_CUDA_CHECK(status);
  stats_.system_calls++;
  stats_.bytes_reserved += static_cast<int64_t>(size);
  return data;
}

// Blocks that nobody uses, slabs' pieces apart. cudaFree waits until the device has done with them.
int64_t CachingAllocator::trim() {
  int64_t given_back = 0;
  for (auto& [stream, classes] : free_)
    for (auto& blocks : classes)
      std::erase_if(blocks, [&](const MemoryBlock& block) {
        if (block.capacity <= kSmall) return false;
        ADAGATE_CUDA_CHECK(cudaFree(block.data));
        given_back += static_cast<int64_t>(block.capacity);
        return true;
      });
  stats_.bytes_reserved -= given_back;
  return given_back;
}

void CachingAllocator::wait_for(cudaStream_t waiting, cudaStream_t done) {
  cudaEvent_t event = nullptr;
  ADAGATE_CUDA_CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  ADAGATE_CUDA_CHECK(cudaEventRecord(event, done));
  ADAGATE_CUDA_CHECK(cudaStreamWaitEvent(waiting, event, 0));
  ADAGATE_CUDA_CHECK(cudaEventDestroy(event));  // once it has happened
}

}  // namespace adagate::cuda
