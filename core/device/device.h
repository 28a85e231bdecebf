// Where a tensor lives.
#pragma once

#include <cstdint>
#include <string_view>

namespace adagate {

// guarded: a device of the tests whose memory the host can't touch (tests/support).
enum class DeviceKind : uint8_t { cpu, cuda, guarded };
constexpr int kDeviceKinds = 3;

constexpr std::string_view name_of(DeviceKind kind) {
  constexpr std::string_view kNames[kDeviceKinds] = {"cpu", "cuda", "guarded"};
  return kNames[static_cast<int>(kind)];
}

struct Device {
  DeviceKind kind = DeviceKind::cpu;
  int index = 0;
  bool operator==(const Device&) const = default;
  bool is_cpu() const { return kind == DeviceKind::cpu; }
};

}  // namespace adagate
