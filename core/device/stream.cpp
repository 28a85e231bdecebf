#include "core/device/stream.h"

#include "core/base/error.h"

namespace adagate {

Stream Stream::of(Device device) {
  static CpuStream cpu;
  check(device.kind == DeviceKind::cpu,
        "this build has no CUDA backend: use the CPU, or configure "
        "with the preset cuda-release");
  return Stream(cpu);
}

}  // namespace adagate
