// The queue a kernel runs on. A kernel is one overload per queue type, `launch(CpuStream&, const
// XArgs&)` and `launch(CudaStream&, const XArgs&)`; a CPU build only declares the second.
#pragma once

#include "core/device/device.h"

namespace adagate {

// CPU kernels run at once, on the calling thread's OpenMP team.
class CpuStream {};
class CudaStream;  // complete only in the CUDA sources

class Stream {
 public:
  explicit Stream(CpuStream& cpu) : cpu_(&cpu) {}
  explicit Stream(CudaStream& cuda) : cuda_(&cuda) {}

  // Calls f with the concrete queue. One of the two places that know which backends are built.
  template <class F>
  decltype(auto) visit(F&& f) const {
#ifdef ADAGATE_WITH_CUDA
    if (cuda_) return f(*cuda_);
#endif
    return f(*cpu_);
  }

  // The calling thread's current stream on `device`. Throws Error when the device is not built in.
  static Stream of(Device device);

 private:
  CpuStream* cpu_ = nullptr;
  CudaStream* cuda_ = nullptr;
};

// Runs a kernel where its tensors are: launch_on(x.device(), GeluArgs{...}).
template <class Args>
void launch_on(Device device, const Args& args) {
  Stream::of(device).visit([&](auto& stream) { launch(stream, args); });
}

}  // namespace adagate
