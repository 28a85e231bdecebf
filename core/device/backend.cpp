#include "core/device/backend.h"

#include <atomic>

#include "core/base/error.h"
#include "core/device/plugin.h"

namespace adagate {
namespace {

std::atomic<Backend*> g_backends[kDeviceKinds];

std::atomic<Backend*>& slot_of(DeviceKind kind) {
  return g_backends[static_cast<int>(kind)];
}

Backend& registered(DeviceKind kind) {
  Backend* backend = slot_of(kind).load(std::memory_order_acquire);
  check(backend != nullptr, "there is no backend for devices of kind {}", name_of(kind));
  return *backend;
}

}  // namespace

void register_backend(DeviceKind kind, Backend& backend) {
  check(kind != DeviceKind::cpu, "the CPU needs no backend");
  Backend* none = nullptr;
  check(slot_of(kind).compare_exchange_strong(none, &backend) || none == &backend,
        "there is a backend for devices of kind {} already", name_of(kind));
}

void open_backend(DeviceKind kind, const std::string& file) {
  auto entry = reinterpret_cast<BackendEntry>(
      open_plugin(file, kBackendEntry, fmt::format("the backend for {}", name_of(kind))));
  Backend* backend = entry(kBackendAbi);
  check(backend != nullptr,
        "{} was built for another version of adagate: its backends are not of version {}", file,
        kBackendAbi);
  register_backend(kind, *backend);
}

int devices_of(DeviceKind kind) {
  return registered(kind).devices();
}

Backend& backend_of(Device device) {
  Backend& backend = registered(device.kind);
  check(device.index >= 0 && device.index < backend.devices(), "{} device {} of {}",
        name_of(device.kind), device.index, backend.devices());
  return backend;
}

AllocatorStats memory_stats(Device device) {
  return device.is_cpu() ? allocator_stats() : backend_of(device).memory(device.index);
}

KernelFn find_kernel(DeviceKind kind, std::string_view name, size_t args_bytes) {
  KernelFn kernel = registered(kind).kernel(name, args_bytes);
  check(kernel != nullptr,
        "the backend for {} has no kernel {} with arguments of {} bytes: it was built from other "
        "sources",
        name_of(kind), name, args_bytes);
  return kernel;
}

}  // namespace adagate
