#include "core/device/cuda/stream.h"

#include "core/device/cuda/check.h"

namespace adagate {
namespace {

cudaStream_t make_stream() {
  cudaStream_t stream = nullptr;
  ADAGATE_CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return stream;
}

}  // namespace

CudaStream::CudaStream(int device, cuda::CachingAllocator& allocator)
    : device_(device), allocator_(allocator), handle_(make_stream()), staging_(handle_) {}

}  // namespace adagate
