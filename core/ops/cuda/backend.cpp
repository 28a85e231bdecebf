// What libadagate_cuda.so is: CUDA as adagate's Backend.
#include "core/device/backend.h"

#include <mutex>
#include <vector>

#include "core/device/cuda/check.h"
#include "core/device/cuda/devices.h"
#include "core/ops/cuda/kernel_table.h"

namespace adagate::cuda {
namespace {

// Events that are used again: making one takes longer than recording it.
class TimingEvents {
 public:
  cudaEvent_t take() {
    std::lock_guard lock(mutex_);
    cudaEvent_t event = nullptr;
    if (idle_.empty()) {
      ADAGATE_CUDA_CHECK(cudaEventCreate(&event));
    } else {
      event = idle_.back();
      idle_.pop_back();
    }
    return event;
  }
  void give_back(cudaEvent_t event) {
    std::lock_guard lock(mutex_);
    idle_.push_back(event);
  }

 private:
  std::mutex mutex_;
  std::vector<cudaEvent_t> idle_;
};

class CudaBackend final : public Backend {
 public:
  int devices() const override { return device_count(); }

  DeviceFacts facts(int index) override {
    cudaDeviceProp properties{};
    ADAGATE_CUDA_CHECK(cudaGetDeviceProperties(&properties, index));
    stream_of_thread(index);
    size_t free = 0, total = 0;
    ADAGATE_CUDA_CHECK(cudaMemGetInfo(&free, &total));
    return {.name = fmt::format("{}, compute capability {}.{}", properties.name, properties.major,
                                properties.minor),
            .memory_bytes = static_cast<int64_t>(total),
            .free_bytes = static_cast<int64_t>(free)};
  }

  AllocatorStats memory(int index) override { return gpu(index).allocator.stats(); }

  MemoryBlock allocate(size_t bytes, int index) override {
    return stream_of_thread(index).allocate(bytes);
  }
  void release(MemoryBlock block, int index) override {
    if (!thread_has_ended()) stream_of_thread(index).release(block);
  }
  void* queue(int index) override { return &stream_of_thread(index); }

  void copy(void* to, const void* from, size_t bytes, CopyKind kind, int index) override {
    CudaStream& stream = stream_of_thread(index);
    switch (kind) {
      case CopyKind::to_device:
        return stream.staging().to_device(to, from, bytes);
      case CopyKind::to_host:
        return stream.staging().to_host(to, from, bytes);
      case CopyKind::on_device:
        ADAGATE_CUDA_CHECK(
            cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream.handle()));
    }
  }

  void synchronize(int index) override {
    ADAGATE_CUDA_CHECK(cudaStreamSynchronize(stream_of_thread(index).handle()));
  }

  void* mark(int index) override {
    cudaEvent_t event = marks_.take();
    ADAGATE_CUDA_CHECK(cudaEventRecord(event, stream_of_thread(index).handle()));
    return event;
  }
  void forget(void* mark) override { marks_.give_back(static_cast<cudaEvent_t>(mark)); }

  std::optional<double> seconds_between(void* from, void* to) override {
    cudaError_t status = cudaEventQuery(static_cast<cudaEvent_t>(to));
    if (status == cudaErrorNotReady) return {};
    ADAGATE_CUDA_CHECK(status);
    float milliseconds = 0;
    ADAGATE_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, static_cast<cudaEvent_t>(from),
                                            static_cast<cudaEvent_t>(to)));
    return 1e-3 * static_cast<double>(milliseconds);
  }

  KernelFn kernel(std::string_view name, size_t args_bytes) override {
    return kernel_named(name, args_bytes);
  }

 private:
  TimingEvents marks_;
};

}  // namespace
}  // namespace adagate::cuda

extern "C" adagate::Backend* adagate_backend(uint32_t abi) {
  // Never destroyed: CUDA must not be called once the process ends.
  static auto* backend = new adagate::cuda::CudaBackend;
  return abi == adagate::kBackendAbi ? backend : nullptr;
}
