// How kernels are started. A kernel is a struct of arguments, with the kernel's name, and one
// overload of launch() per queue type. The CPU's is called directly; those of other devices are
// found by name at run time (core/device/backend.h).
//
//   struct GeluArgs {
//     static constexpr std::string_view kKernel = "gelu";
//     const void* x;  // memory of the device, as all pointers unless the struct says otherwise
//     ...
//   };
//   void launch(CpuStream&, const GeluArgs&);
//   launch_on(x.device(), GeluArgs{.x = x.raw(), ...});
//
// A launch may be a queue entry: results are there for later launches on the same device, for
// copies, and for nobody else.
#pragma once

#include <array>
#include <atomic>

#include "core/device/backend.h"

namespace adagate {

// CPU kernels run at once, on the calling thread's OpenMP team.
class CpuStream {};
class CudaStream;  // complete only in the CUDA sources, which define the overloads for it

template <class Args>
void launch_elsewhere(Device device, const Args& args) {
  static std::array<std::atomic<KernelFn>, kDeviceKinds> found;
  auto& kernel = found[static_cast<size_t>(device.kind)];
  KernelFn run = kernel.load(std::memory_order_relaxed);
  if (!run) {
    run = find_kernel(device.kind, Args::kKernel, sizeof(Args));
    kernel.store(run, std::memory_order_relaxed);
  }
  run(backend_of(device).queue(device.index), &args);
}

// Runs a kernel where its tensors are.
template <class Args>
void launch_on(Device device, const Args& args) {
  if (device.is_cpu()) {
    CpuStream cpu;
    launch(cpu, args);
  } else {
    launch_elsewhere(device, args);
  }
}

}  // namespace adagate
