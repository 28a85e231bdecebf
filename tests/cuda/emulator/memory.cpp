#include "tests/cuda/emulator/memory.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <vector>

#include "tests/cuda/emulator/faults.h"
#include "tests/cuda/emulator/sanitizers.h"

namespace adagate::emulator {
namespace {

constexpr size_t kAlign = 256;
constexpr size_t kPage = 4096;
constexpr int kPoison = 0xFF;  // NaN in every floating-point type

std::atomic<size_t> bytes_of_device{size_t{64} << 30};

size_t round_up(size_t bytes, size_t to) {
  return (bytes + to - 1) / to * to;
}

void protect(std::byte* pages, size_t bytes, int protection) {
  if (mprotect(pages, bytes, protection) != 0) stop("mprotect has failed");
}

// Whether [first, first + bytes) lies in the last entry that begins at or before it.
template <class Map, class BytesOf>
bool holds_in(const Map& map, const void* first, size_t bytes, BytesOf bytes_of) {
  auto* data = static_cast<std::byte*>(const_cast<void*>(first));
  auto after = map.upper_bound(data);
  if (after == map.begin()) return false;
  const auto& [start, entry] = *std::prev(after);
  return data + bytes <= start + bytes_of(entry);
}

struct Pinned {
  std::mutex mutex;
  std::map<std::byte*, size_t> blocks;
};
Pinned& pinned() {
  static auto* pinned = new Pinned;
  return *pinned;
}

}  // namespace

DeviceMemory::DeviceMemory() {
  if (kSanitized) return;
  void* base = mmap(nullptr, kSpan, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) stop("no addresses for a device's memory");
  base_ = static_cast<std::byte*>(base);
}

// An allocation ends where its last page ends, as nearly as its alignment allows; one page that is
// never open follows.
void* DeviceMemory::allocate(size_t bytes) {
  std::lock_guard lock(mutex_);
  if (bytes > device_bytes() - std::min(device_bytes(), used_)) return nullptr;
  const size_t pages = round_up(std::max(bytes, size_t{1}), kPage);
  std::byte *first = nullptr, *data = nullptr;
  if (kSanitized) {
    void* block = nullptr;
    if (posix_memalign(&block, kAlign, std::max(bytes, size_t{1})) != 0) return nullptr;
    data = static_cast<std::byte*>(block);
    std::memset(data, kPoison, bytes);
  } else {
    if (given_ + pages + kPage > kSpan) return nullptr;
    first = base_ + given_;
    given_ += pages + kPage;
    data = first + pages - std::min(pages, round_up(std::max(bytes, size_t{1}), kAlign));
    protect(first, pages, PROT_READ | PROT_WRITE);
    std::memset(first, kPoison, pages);
    if (opened_ == 0) protect(first, pages, PROT_NONE);
  }
  allocations_[data] = {first, pages, bytes};
  used_ += bytes;
  return data;
}

bool DeviceMemory::release(void* data) {
  std::lock_guard lock(mutex_);
  auto found = allocations_.find(static_cast<std::byte*>(data));
  if (found == allocations_.end()) return false;
  const Allocation& allocation = found->second;
  used_ -= allocation.bytes;
  if (kSanitized) {
    std::free(data);
  } else {
    madvise(allocation.pages, allocation.page_bytes, MADV_DONTNEED);
    protect(allocation.pages, allocation.page_bytes, PROT_NONE);
  }
  allocations_.erase(found);
  return true;
}

bool DeviceMemory::holds(const void* first, size_t bytes) const {
  std::lock_guard lock(mutex_);
  return holds_in(allocations_, first, bytes, [](const Allocation& a) { return a.bytes; });
}

size_t DeviceMemory::used() const {
  std::lock_guard lock(mutex_);
  return used_;
}

void DeviceMemory::open() {
  std::lock_guard lock(mutex_);
  if (opened_++ > 0 || kSanitized) return;
  for (auto& [data, allocation] : allocations_)
    protect(allocation.pages, allocation.page_bytes, PROT_READ | PROT_WRITE);
}

void DeviceMemory::close() {
  std::lock_guard lock(mutex_);
  if (--opened_ > 0 || kSanitized) return;
  for (auto& [data, allocation] : allocations_)
    protect(allocation.pages, allocation.page_bytes, PROT_NONE);
}

size_t device_bytes() {
  return bytes_of_device;
}
void set_device_bytes(size_t bytes) {
  bytes_of_device = bytes;
}

void* allocate_pinned(size_t bytes) {
  void* block = nullptr;
  if (posix_memalign(&block, kPage, std::max(bytes, size_t{1})) != 0) return nullptr;
  std::memset(block, kPoison, bytes);
  register_pinned(block, bytes);
  return block;
}

bool release_pinned(void* data) {
  if (!unregister_pinned(data)) return false;
  std::free(data);
  return true;
}

void register_pinned(void* data, size_t bytes) {
  std::lock_guard lock(pinned().mutex);
  pinned().blocks[static_cast<std::byte*>(data)] = bytes;
}

bool unregister_pinned(void* data) {
  std::lock_guard lock(pinned().mutex);
  return pinned().blocks.erase(static_cast<std::byte*>(data)) > 0;
}

bool is_pinned(const void* first, size_t bytes) {
  std::lock_guard lock(pinned().mutex);
  return holds_in(pinned().blocks, first, bytes, [](size_t block) { return block; });
}

}  // namespace adagate::emulator
