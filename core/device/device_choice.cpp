#include "core/device/device_choice.h"

#include <filesystem>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/device/backend.h"
#include "core/device/plugin.h"

namespace adagate {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kFile = "libadagate_cuda.so";

// The kernel's part of NVIDIA's driver is there.
bool has_nvidia_driver() {
  std::error_code error;
  return fs::exists("/dev/nvidiactl", error) || fs::exists("/proc/driver/nvidia", error);
}

}  // namespace

std::string why_no_cuda() {
  std::string file = cuda_library();
  if (file.empty())
    return fmt::format(
        "there is no {} beside the program or in its library folder: build adagate where the CUDA "
        "toolkit is (-DADAGATE_CUDA=ON), or name the file in ADAGATE_CUDA_LIBRARY",
        kFile);
  try {
    open_backend(DeviceKind::cuda, file);
    if (devices_of(DeviceKind::cuda) > 0) return "";
  } catch (const Error& error) {
    return error.what();
  }
  return has_nvidia_driver()
             ? "the driver shows no GPU: see nvidia-smi and CUDA_VISIBLE_DEVICES"
             : "this machine has no NVIDIA driver, or a container hides it: see nvidia-smi";
}

std::string cuda_library() {
  return find_plugin(kFile, "ADAGATE_CUDA_LIBRARY");
}

DeviceKind choose_device_kind(std::string_view wanted) {
  if (wanted == "cpu") return DeviceKind::cpu;
  std::string reason = why_no_cuda();
  if (reason.empty()) return DeviceKind::cuda;
  check(wanted != "cuda", "device: cuda can't be had: {}; device: cpu needs none", reason);
  if (has_nvidia_driver())
    log::warn("computing on the CPU, although this machine has an NVIDIA driver: {}", reason);
  return DeviceKind::cpu;
}

Device device_for_rank(DeviceKind kind, int local_rank) {
  if (kind == DeviceKind::cpu) return {};
  return {kind, local_rank % devices_of(kind)};
}

}  // namespace adagate
