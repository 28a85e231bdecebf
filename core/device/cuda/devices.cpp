#include "core/device/cuda/devices.h"

#include "core/device/cuda/check.h"

namespace adagate::cuda {
namespace {

int count_devices() {
  int count = 0;  // left alone when there is no driver
  cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess) return count;
  cudaGetLastError();
  bool none = status == cudaErrorNoDevice || status == cudaErrorInsufficientDriver ||
              status == cudaErrorStubLibrary;
  if (!none) ADAGATE_CUDA_CHECK(status);
  return 0;
}

constinit thread_local bool has_ended = false;

// Ranks of tests are threads that come and go: their queues are used again.
class StreamsOfThread {
 public:
  ~StreamsOfThread() {
    has_ended = true;
    for (size_t i = 0; i < streams_.size(); ++i)
      if (streams_[i]) gpu(static_cast<int>(i)).give_back(streams_[i]);
  }

  CudaStream& at(int index) {
    if (streams_.empty()) streams_.resize(static_cast<size_t>(device_count()));
    if (current_ != index) {
      ADAGATE_CUDA_CHECK(cudaSetDevice(index));
      current_ = index;
    }
    CudaStream*& stream = streams_[static_cast<size_t>(index)];
    if (!stream) stream = gpu(index).take_stream();
    return *stream;
  }

 private:
  std::vector<CudaStream*> streams_;  // by GPU
  int current_ = -1;
};

}  // namespace

int device_count() {
  static const int count = count_devices();
  return count;
}

CudaStream* Gpu::take_stream() {
  {
    std::lock_guard lock(mutex_);
    if (!idle_.empty()) {
      CudaStream* stream = idle_.back();
      idle_.pop_back();
      return stream;
    }
  }
  return new CudaStream(index_, allocator);
}

void Gpu::give_back(CudaStream* stream) {
  std::lock_guard lock(mutex_);
  idle_.push_back(stream);
}

Gpu& gpu(int index) {
  static auto& all = *[] {
    auto* gpus = new std::vector<std::unique_ptr<Gpu>>;
    for (int i = 0; i < device_count(); ++i) gpus->push_back(std::make_unique<Gpu>(i));
    return gpus;
  }();
  return *all[static_cast<size_t>(index)];
}

bool thread_has_ended() {
  return has_ended;
}

CudaStream& stream_of_thread(int index) {
  thread_local StreamsOfThread streams;
  return streams.at(index);
}

}  // namespace adagate::cuda
