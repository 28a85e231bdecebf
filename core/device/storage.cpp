#include "core/device/storage.h"

#include "core/device/allocator.h"
#include "core/device/backend.h"

namespace adagate {

std::shared_ptr<Storage> Storage::allocate(size_t bytes, Device device) {
  MemoryBlock block =
      device.is_cpu() ? allocate_cpu(bytes) : backend_of(device).allocate(bytes, device.index);
  return std::make_shared<Storage>(Key{}, block.data, bytes, device, nullptr, block.capacity);
}

std::shared_ptr<Storage> Storage::wrap(void* data, size_t bytes, Device device,
                                       std::shared_ptr<void> owner) {
  return std::make_shared<Storage>(Key{}, data, bytes, device, std::move(owner), 0);
}

Storage::~Storage() {
  if (!capacity_) return;
  if (device_.is_cpu()) {
    release_cpu({data_, capacity_});
  } else {
    backend_of(device_).release({data_, capacity_}, device_.index);
  }
}

}  // namespace adagate
