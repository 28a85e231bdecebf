// Streams and arrays of the emulated device for the emulator's own tests.
#pragma once

#include <cuda_runtime_api.h>
#include <vector>

#include "tests/cuda/emulator/config.h"
#include "tests/cuda/emulator/emulator.h"
#include "tests/cuda/emulator/faults.h"
#include "tests/cuda/emulator/runtime.h"
#include "tests/cuda/emulator/sanitizers.h"
#include "tests/support/catch.h"
#include "tests/support/in_child.h"

namespace adagate::test {

#ifdef __SANITIZE_THREAD__
constexpr bool kThreadSanitizer = true;
#else
constexpr bool kThreadSanitizer = false;
#endif

class EmulatedStream {
 public:
  EmulatedStream() { cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking); }
  ~EmulatedStream() { cudaStreamDestroy(stream_); }
  EmulatedStream(const EmulatedStream&) = delete;
  EmulatedStream& operator=(const EmulatedStream&) = delete;
  cudaStream_t handle() const { return stream_; }
  void wait() const { cudaStreamSynchronize(stream_); }

 private:
  cudaStream_t stream_ = nullptr;
};

template <class T>
class EmulatedArray {
 public:
  explicit EmulatedArray(size_t size) : size_(size) {
    cudaMalloc(reinterpret_cast<void**>(&data_), size * sizeof(T));
  }
  explicit EmulatedArray(const std::vector<T>& values) : EmulatedArray(values.size()) {
    cudaMemcpy(data_, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice);
  }
  ~EmulatedArray() { cudaFree(data_); }
  EmulatedArray(const EmulatedArray&) = delete;
  EmulatedArray& operator=(const EmulatedArray&) = delete;

  T* data() const { return data_; }
  // Waits for all of the device.
  std::vector<T> values() const {
    cudaDeviceSynchronize();
    std::vector<T> values(size_);
    cudaMemcpy(values.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost);
    return values;
  }

 private:
  size_t size_;
  T* data_ = nullptr;
};

// The order in which threads take their turns, while this lives.
class RunInOrder {
 public:
  explicit RunInOrder(emulator::Order order, uint64_t seed = 1) : before_(emulator::config()) {
    emulator::config().order = order;
    emulator::config().seed = seed;
  }
  ~RunInOrder() { emulator::config() = before_; }
  RunInOrder(const RunInOrder&) = delete;
  RunInOrder& operator=(const RunInOrder&) = delete;

 private:
  emulator::Config before_;
};

constexpr emulator::Order kOrders[] = {emulator::Order::forward, emulator::Order::reverse,
                                       emulator::Order::random};

// f ends its process as the emulator does, and says all of this.
template <class F>
void check_stops(F&& f, const std::vector<std::string>& texts) {
  Ended ended = in_child(f);
  INFO(ended.output);
  CHECK(ended.status == emulator::kEmulatorExit);
  for (const std::string& text : texts) CHECK(ended.output.find(text) != std::string::npos);
}

}  // namespace adagate::test
