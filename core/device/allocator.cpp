#include "core/device/allocator.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <mutex>
#include <sys/mman.h>
#include <unordered_map>
#include <vector>

#include "core/base/error.h"

namespace adagate {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kHuge = size_t{2} << 20;
constexpr size_t kMapped = size_t{1} << 20;  // from here on blocks come from mmap

// Rounds up to a size class: eight classes per power of two, so at most 12.5 % is wasted, and
// tensors of slightly different sizes (routed rows) share blocks.
size_t size_class(size_t bytes) {
  bytes = std::max<size_t>(bytes, kAlignment);
  size_t step = std::max<size_t>(std::bit_floor(bytes) / 8, kAlignment);
  size_t rounded = (bytes + step - 1) / step * step;
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
  void* allocate(size_t bytes) {
    size_t size = size_class(bytes);
    std::lock_guard lock(mutex_);
    stats_.allocations++;
    stats_.bytes_handed_out += static_cast<int64_t>(bytes);
    stats_.bytes_in_use += static_cast<int64_t>(size);
    stats_.peak_bytes_in_use = std::max(stats_.peak_bytes_in_use, stats_.bytes_in_use);
    if (auto& free = free_[size]; !free.empty()) {
      void* block = free.back();
      free.pop_back();
      return block;
    }
    void* block = from_system(size);
    if (!block && trim() > 0) block = from_system(size);
    if (!block) {
      stats_.bytes_in_use -= static_cast<int64_t>(size);
      fail(
          "out of memory: {:.1f} MiB wanted with {:.1f} MiB in use; use a smaller batch, more "
          "accumulation or train.activation_checkpointing: block",
          bytes / 1048576.0, stats_.bytes_in_use / 1048576.0);
    }
    stats_.system_calls++;
    stats_.bytes_reserved += static_cast<int64_t>(size);
    return block;
  }

  void release(void* block, size_t bytes) {
    size_t size = size_class(bytes);
    std::lock_guard lock(mutex_);
    stats_.bytes_in_use -= static_cast<int64_t>(size);
    free_[size].push_back(block);
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
  int64_t trim() {
    int64_t given_back = 0;
    for (auto& [size, blocks] : free_) {
      for (void* block : blocks) to_system(block, size);
      given_back += static_cast<int64_t>(size * blocks.size());
      blocks.clear();
    }
    stats_.bytes_reserved -= given_back;
    return given_back;
  }

  std::mutex mutex_;
  std::unordered_map<size_t, std::vector<void*>> free_;
  AllocatorStats stats_;
};

// Never destroyed: tensors with static lifetime may outlive any destructor order.
Pool& pool() {
  static Pool* pool = new Pool;
  return *pool;
}

}  // namespace

void* allocate_cpu(size_t bytes) {
  return pool().allocate(bytes);
}
void release_cpu(void* block, size_t bytes) {
  pool().release(block, bytes);
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
