// Shared bytes on one device. The only type of the project that is held by shared_ptr.
#pragma once

#include <cstddef>
#include <memory>

#include "core/device/device.h"

namespace adagate {

class Storage {
  struct Key {};  // only allocate() and wrap() make one

 public:
  // Uninitialised bytes from the caching allocator.
  static std::shared_ptr<Storage> allocate(size_t bytes, Device device);
  // Bytes that somebody else allocated (a shared-memory window, a mapped file); `owner` keeps them.
  static std::shared_ptr<Storage> wrap(void* data, size_t bytes, Device device,
                                       std::shared_ptr<void> owner);
  Storage(Key, void* data, size_t bytes, Device device, std::shared_ptr<void> owner,
          size_t capacity)
      : data_(data),
        bytes_(bytes),
        device_(device),
        owner_(std::move(owner)),
        capacity_(capacity) {}
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  Device device() const { return device_; }

 private:
  void* data_;
  size_t bytes_;
  Device device_;
  std::shared_ptr<void> owner_;
  size_t capacity_;  // of the allocator's block; 0: not from there
};

}  // namespace adagate
