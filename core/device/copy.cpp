#include "core/device/copy.h"

#include <cstring>
#include <vector>

#include "core/device/backend.h"

namespace adagate {
namespace {

thread_local TransferStats t_stats;

}  // namespace

TransferStats transfer_stats() {
  return t_stats;
}

void copy_between(void* to, Device to_device, const void* from, Device from_device, size_t bytes) {
  if (bytes == 0) return;
  if (to_device.is_cpu() && from_device.is_cpu()) {
    std::memcpy(to, from, bytes);
  } else if (to_device.is_cpu()) {
    backend_of(from_device).copy(to, from, bytes, CopyKind::to_host, from_device.index);
  } else if (from_device.is_cpu()) {
    backend_of(to_device).copy(to, from, bytes, CopyKind::to_device, to_device.index);
  } else if (to_device == from_device) {
    backend_of(to_device).copy(to, from, bytes, CopyKind::on_device, to_device.index);
  } else {
    // Rare (a model moved from one device to another), so no backend has a way of its own for it.
    std::vector<std::byte> host(bytes);
    copy_between(host.data(), {}, from, from_device, bytes);
    copy_between(to, to_device, host.data(), {}, bytes);
  }
}

void copy_to_host(void* to, const void* from, size_t bytes, Device device) {
  ++t_stats.reads;
  t_stats.read_bytes += static_cast<int64_t>(bytes);
  copy_between(to, {}, from, device, bytes);
}

void copy_from_host(void* to, const void* from, size_t bytes, Device device) {
  ++t_stats.writes;
  t_stats.write_bytes += static_cast<int64_t>(bytes);
  copy_between(to, device, from, {}, bytes);
}

void synchronize(Device device) {
  if (!device.is_cpu()) backend_of(device).synchronize(device.index);
}

}  // namespace adagate
