#include "core/device/storage.h"

#include "core/base/error.h"
#include "core/device/allocator.h"

namespace adagate {

std::shared_ptr<Storage> Storage::allocate(size_t bytes, Device device) {
  check(device.kind == DeviceKind::cpu, "this build allocates CPU memory only");
  CpuBlock block = allocate_cpu(bytes);
  return std::make_shared<Storage>(Key{}, block.data, bytes, device, nullptr, block.capacity);
}

std::shared_ptr<Storage> Storage::wrap(void* data, size_t bytes, Device device,
                                       std::shared_ptr<void> owner) {
  return std::make_shared<Storage>(Key{}, data, bytes, device, std::move(owner), 0);
}

Storage::~Storage() {
  if (capacity_) release_cpu({data_, capacity_});
}

}  // namespace adagate
