// Memory of one emulated device, and what is known of the host's.
#pragma once

#include <cstddef>
#include <map>
#include <mutex>

namespace adagate::emulator {

// Filled with NaN when it is given out. Its pages can be touched only while it is open, that is
// while the device's work runs; behind each allocation, and where memory was given back, never.
// With sanitizers, which see more, it is memory as any other.
class DeviceMemory {
 public:
  DeviceMemory();

  // Null when there is no more. Aligned to 256 bytes.
  void* allocate(size_t bytes);
  // False: it was not allocated here.
  bool release(void* data);

  // Whether all of it is in one allocation.
  bool holds(const void* first, size_t bytes) const;
  // Whether the address is one of this device's, allocated or not. Takes no lock.
  bool spans(const void* address) const {
    return base_ && address >= base_ && address < base_ + kSpan;
  }
  size_t used() const;

  // Calls are counted: open until as many close() have followed.
  void open();
  void close();

 private:
  struct Allocation {
    std::byte* pages;
    size_t page_bytes, bytes;
  };
  static constexpr size_t kSpan = size_t{256} << 30;  // of addresses, each given out once

  std::byte* base_ = nullptr;
  size_t given_ = 0;  // of kSpan
  size_t used_ = 0;
  int opened_ = 0;
  std::map<std::byte*, Allocation> allocations_;  // by where they begin
  mutable std::mutex mutex_;
};

// Bytes of each device; what is beyond can't be allocated.
size_t device_bytes();
void set_device_bytes(size_t bytes);

// Pinned memory of the host, which copies read and write when they run, not when they are queued.
void* allocate_pinned(size_t bytes);
bool release_pinned(void* data);
void register_pinned(void* data, size_t bytes);
bool unregister_pinned(void* data);
bool is_pinned(const void* first, size_t bytes);

}  // namespace adagate::emulator
