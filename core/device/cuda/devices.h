// The GPUs of this machine, and the queues of this process's threads on them.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "core/device/cuda/stream.h"

namespace adagate::cuda {

// How many GPUs there are; 0 without a driver, too.
int device_count();

// One GPU: its memory, and the queues that threads have on it.
class Gpu {
 public:
  explicit Gpu(int index) : allocator(index), index_(index) {}
  // A queue that no thread has.
  CudaStream* take_stream();
  // Of a thread that ends; its work goes on.
  void give_back(CudaStream* stream);

  CachingAllocator allocator;

 private:
  const int index_;
  std::mutex mutex_;
  std::vector<CudaStream*> idle_;
};

// Of index < device_count(). Never destroyed: tensors may outlive all destructors.
Gpu& gpu(int index);

// The calling thread's queue; makes the GPU its current one.
CudaStream& stream_of_thread(int index);

// Whether the calling thread has given its queues back: it ends, and with the main thread the
// process. Tensors that are destroyed even later (static ones) leave their memory as it is.
bool thread_has_ended();

}  // namespace adagate::cuda
