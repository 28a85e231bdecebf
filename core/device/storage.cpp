#include "core/device/storage.h"

#include "core/base/error.h"
#include "core/device/allocator.h"

namespace adagate {

std::shared_ptr<Storage> Storage::allocate(size_t bytes, Device device) {
  check(device.kind == DeviceKind::cpu, "this build allocates CPU memory only");
  return std::shared_ptr<Storage>(new Storage(allocate_cpu(bytes), bytes, device, nullptr, true));
}

std::shared_ptr<Storage> Storage::wrap(void* data, size_t bytes, Device device,
                                       std::shared_ptr<void> owner) {
  return std::shared_ptr<Storage>(new Storage(data, bytes, device, std::move(owner), false));
}

Storage::~Storage() {
  if (cached_) release_cpu(data_, bytes_);
}

}  // namespace adagate
