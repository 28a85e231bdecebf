#include "core/device/allocator.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <mutex>
#include <sys/mman.h>
#include <vector>

#include "core/base/error.h"
#include "core/device/size_classes.h"

namespace adagate {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kHuge = size_t{2} << 20;
constexpr size_t kMapped = size_t{1} << 20;  // from here on blocks come from mmap

size_t block_size(size_t bytes) {
  size_t rounded = size_class(bytes, kAlignment);
  return rounded >= kMapped ? (rounded + kHuge - 1) / kHuge * kHuge : rounded;
}

void* from_system(size_t bytes) {
  if (bytes < kMapped) return std::aligned_alloc(kAlignment, bytes);
  // Mapped with room to spare so that the block starts on a huge page; the rest is given back.
  size_t room = bytes + kHuge;
  void* base = mmap(nullptr, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) return nullptr;
  auto address = reinterpret_cast<uintptr_t>(base);
  uintptr_t start = (address + kHuge - 1) / kHuge * kHuge;
  if (start > address) munmap(base, start - address);
  if (size_t tail = address + room - (start + bytes)) {
    munmap(reinterpret_cast<void*>(start + bytes), tail);
  }
  madvise(reinterpret_cast<void*>(start), bytes, MADV_HUGEPAGE);
  return reinterpret_cast<void*>(start);
}

void to_system(void* block, size_t bytes) {
  if (bytes < kMapped) {
    std::free(block);
  } else {
    munmap(block, bytes);
  }
}

class Pool {
 public:
  MemoryBlock allocate(size_t bytes) {
    size_t size = block_size(bytes);
    std::lock_guard lock(mutex_);
    MemoryBlock block = take_free(size);
    if (!block.data) block = ask_system(size, bytes);
    stats_.allocations++;
    stats_.bytes_handed_out += static_cast<int64_t>(bytes);
    stats_.bytes_in_use += static_cast<int64_t>(block.capacity);
    stats_.peak_bytes_in_use = std::max(stats_.peak_bytes_in_use, stats_.bytes_in_use);
    return block;
  }

  void release(MemoryBlock block) {
    std::lock_guard lock(mutex_);
    stats_.bytes_in_use -= static_cast<int64_t>(block.capacity);
    free_[class_index(block.capacity)].push_back(block);
  }

  int64_t trim_locked() {
    std::lock_guard lock(mutex_);
    return trim();
  }

  AllocatorStats stats() {
    std::lock_guard lock(mutex_);
    return stats_;
  }

  void reset_peak() {
    std::lock_guard lock(mutex_);
    stats_.peak_bytes_in_use = stats_.bytes_in_use;
  }

 private:
  // Empty when no free block fits.
  MemoryBlock take_free(size_t size) {
    size_t first = class_index(size), last = std::min(first + kLargerClasses, kSizeClasses - 1);
    for (size_t i = first; i <= last; ++i) {
      if (free_[i].empty()) continue;
      MemoryBlock block = free_[i].back();
      free_[i].pop_back();
      return block;
    }
    return {};
  }

  MemoryBlock ask_system(size_t size, size_t bytes) {
    void* data = from_system(size);
    if (!data && trim() > 0) data = from_system(size);
    if (!data) {
      fail(
          "out of memory: {:.1f} MiB wanted with {:.1f} MiB in use; use a smaller batch, more "
          "accumulation or train.activation_checkpointing: block",
          bytes / 1048576.0, stats_.bytes_in_use / 1048576.0);
    }
    stats_.system_calls++;
    stats_.bytes_reserved += static_cast<int64_t>(size);
    return {data, size};
  }

  int64_t trim() {
    int64_t given_back = 0;
    for (auto& blocks : free_) {
      for (const MemoryBlock& block : blocks) {
        to_system(block.data, block.capacity);
        given_back += static_cast<int64_t>(block.capacity);
      }
      blocks.clear();
    }
    stats_.bytes_reserved -= given_back;
    return given_back;
  }

  std::mutex mutex_;
  std::array<std::vector<MemoryBlock>, kSizeClasses> free_;  // by class
  AllocatorStats stats_;
};

// Never destroyed: tensors with static lifetime may outlive any destructor order.
Pool& pool() {
  static Pool* pool = new Pool;
  return *pool;
}

}  // namespace

MemoryBlock allocate_cpu(size_t bytes) {
  return pool().allocate(bytes);
}
void release_cpu(MemoryBlock block) {
  pool().release(block);
}
AllocatorStats allocator_stats() {
  return pool().stats();
}
void reset_peak_memory() {
  pool().reset_peak();
}
void trim_allocator() {
  pool().trim_locked();
}

}  // namespace adagate
