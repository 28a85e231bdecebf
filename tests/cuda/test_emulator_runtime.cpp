// The emulated runtime: what is ordered happens in order, and what is not shows over the seeds;
// device memory is no memory of the host.
#include <cmath>
#include <cstring>
#include <thread>

#include "tests/cuda/emulator_fixture.h"

namespace adagate::test {
namespace {

constexpr int kElements = 1000;
constexpr size_t kBytes = kElements * sizeof(float);
constexpr unsigned kSeeds = 20;

__global__ void scale(const float* x, float* y, int n, float factor) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) y[i] = factor * x[i];
}
__global__ void add(const float* x, float* y, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) y[i] += x[i];
}

class Event {
 public:
  Event() { cudaEventCreateWithFlags(&event_, cudaEventDisableTiming); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  cudaEvent_t handle() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

enum class Fault { none, no_event, read_early, reused_early };

// y = 2 x over two streams, from pinned memory and back to it: whether the result is right.
bool doubles(Fault fault) {
  float* host;
  cudaMallocHost(reinterpret_cast<void**>(&host), kBytes);
  EmulatedArray<float> x(kElements), twice(kElements), y(kElements);
  EmulatedStream compute, transfer;
  Event scaled, added;
  for (int i = 0; i < kElements; ++i) host[i] = static_cast<float>(i);
  cudaMemcpyAsync(x.data(), host, kBytes, cudaMemcpyHostToDevice, transfer.handle());
  if (fault == Fault::reused_early) std::fill(host, host + kElements, -1.0f);
  cudaMemsetAsync(y.data(), 0, kBytes, compute.handle());
  ADAGATE_LAUNCH(scale, 4, 256, 0, transfer, x.data(), twice.data(), kElements, 2.0f);
  cudaEventRecord(scaled.handle(), transfer.handle());
  if (fault != Fault::no_event) cudaStreamWaitEvent(compute.handle(), scaled.handle(), 0);
  ADAGATE_LAUNCH(add, 4, 256, 0, compute, twice.data(), y.data(), kElements);
  cudaEventRecord(added.handle(), compute.handle());
  cudaStreamWaitEvent(transfer.handle(), added.handle(), 0);
  cudaMemcpyAsync(host, y.data(), kBytes, cudaMemcpyDeviceToHost, transfer.handle());
  if (fault != Fault::read_early) transfer.wait();
  bool right = true;
  for (int i = 0; i < kElements; ++i) right &= host[i] == 2.0f * static_cast<float>(i);
  cudaDeviceSynchronize();
  cudaFreeHost(host);
  return right;
}

// In how many of the seeds' orders a program goes wrong. Each on a device of its own, which takes
// its seed with its first work: in a child.
unsigned wrong_in(Fault fault) {
  unsigned wrong = 0;
  for (unsigned seed = 0; seed < kSeeds; ++seed) {
    Ended ended = in_child([&] {
      emulator::config().seed = seed;
      cudaSetDevice(emulator::kDevices - 1);
      if (!doubles(fault)) throw std::runtime_error("wrong");
    });
    if (ended.status != 0) ++wrong;
  }
  return wrong;
}

}  // namespace

TEST_CASE("What streams and events order happens in order; what they don't goes wrong") {
  CHECK(wrong_in(Fault::none) == 0);
  CHECK(wrong_in(Fault::read_early) == kSeeds);
  CHECK(wrong_in(Fault::reused_early) == kSeeds);
  const unsigned without_event = wrong_in(Fault::no_event);
  CHECK(without_event > kSeeds / 5);
  CHECK(without_event < kSeeds);
}

TEST_CASE("Work waits until somebody waits for it") {
  EmulatedStream stream;
  EmulatedArray<float> x(std::vector<float>(kElements, 3.0f)), y(kElements);
  auto before = emulator::kernels_run()["scale"];
  ADAGATE_LAUNCH(scale, 4, 256, 0, stream, x.data(), y.data(), kElements, 2.0f);
  CHECK(emulator::kernels_run()["scale"] == before);
  stream.wait();
  CHECK(emulator::kernels_run()["scale"] == before + 1);
  CHECK(y.values() == std::vector<float>(kElements, 6.0f));
}

TEST_CASE("Asking again and again lets work go on") {
  EmulatedStream stream;
  EmulatedArray<float> x(std::vector<float>(kElements, 3.0f)), y(kElements);
  Event event;
  CHECK(cudaEventQuery(event.handle()) == cudaSuccess);
  ADAGATE_LAUNCH(scale, 4, 256, 0, stream, x.data(), y.data(), kElements, 2.0f);
  cudaEventRecord(event.handle(), stream.handle());
  CHECK(cudaEventQuery(event.handle()) == cudaErrorNotReady);
  while (cudaEventQuery(event.handle()) == cudaErrorNotReady) {
  }
  CHECK(cudaStreamQuery(stream.handle()) == cudaSuccess);
}

TEST_CASE("Work that can't be done yet is tried again, and others go on meanwhile") {
  EmulatedStream stream, other;
  EmulatedArray<float> y(std::vector<float>(1, 0.0f));
  bool ready = false;
  emulator::enqueue(stream.handle(), "waits", [&] { return ready; });
  cudaLaunchHostFunc(
      other.handle(), [](void* flag) { *static_cast<bool*>(flag) = true; }, &ready);
  stream.wait();
  CHECK(ready);
}

TEST_CASE("The host's hands off device memory") {
  if (emulator::kSanitized) return;
  EmulatedStream stream;
  EmulatedArray<float> x(std::vector<float>(kElements, 3.0f)), y(kElements);
  check_stops(
      [&] {
        ADAGATE_LAUNCH(scale, 4, 256, 0, stream, x.data(), y.data(), kElements, 2.0f);
        volatile float value = y.data()[0];
        static_cast<void>(value);
      },
      {"the host touched memory of device 0", "launched last: scale"});
  check_stops([&] { x.data()[1] = 1; }, {"the host touched memory of device 0"});
  check_stops(
      [&] {
        cudaLaunchHostFunc(
            stream.handle(), [](void* data) { *static_cast<float*>(data) = 1; }, y.data());
        stream.wait();
      },
      {"the host touched memory of device 0", "running: cudaLaunchHostFunc"});
}

TEST_CASE("New device memory is NaN, and memory that was given back is nobody's") {
  EmulatedArray<float> y(3);
  for (float value : y.values()) CHECK(std::isnan(value));
  if (emulator::kSanitized) return;
  check_stops(
      [&] {
        EmulatedStream stream;
        float* freed;
        cudaMalloc(reinterpret_cast<void**>(&freed), kBytes);
        cudaFree(freed);
        ADAGATE_LAUNCH(scale, 1, 32, 0, stream, freed, y.data(), 1, 1.0f);
        stream.wait();
      },
      {"kernel scale, block (0,0,0), thread (0,0,0)", "in no allocation of its device"});
  check_stops(
      [&] {
        float* freed;
        cudaMalloc(reinterpret_cast<void**>(&freed), kBytes);
        cudaFree(freed);
        cudaFree(freed);
      },
      {"cudaFree of"});
}

TEST_CASE("Copies know where memory is") {
  EmulatedArray<float> x(std::vector<float>(8, 3.0f));
  float host[8];
  CHECK(cudaMemcpy(host, x.data(), sizeof host, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
  CHECK(cudaGetLastError() == cudaErrorInvalidValue);
  CHECK(cudaGetLastError() == cudaSuccess);
  CHECK(cudaMemcpy(host, x.data(), sizeof host, cudaMemcpyDefault) == cudaSuccess);
  CHECK(host[7] == 3.0f);
  check_stops([&] { cudaMemcpy(host, x.data() + 1, sizeof host, cudaMemcpyDeviceToHost); },
              {"cudaMemcpy: 32 bytes", "not in one allocation"});
  float columns[4];
  cudaMemcpy2DAsync(columns, sizeof(float), x.data(), 2 * sizeof(float), sizeof(float), 4,
                    cudaMemcpyDeviceToHost, nullptr);
  CHECK(columns[3] == 3.0f);
}

TEST_CASE("Calls of the runtime are counted") {
  auto before = emulator::api_calls();
  auto added = [&](const char* name) { return emulator::api_calls()[name] - before[name]; };
  EmulatedStream stream;
  {
    EmulatedArray<float> x(8);
    float host[8];
    cudaMemcpyAsync(host, x.data(), sizeof host, cudaMemcpyDeviceToHost, stream.handle());
    CHECK(std::isnan(host[0]));  // a copy to pageable memory is done when the call returns
  }
  CHECK(added("cudaMalloc") == 1);
  CHECK(added("cudaFree") == 1);
  CHECK(added("cudaMemcpyAsync") == 1);
  CHECK(added("cudaMemcpy") == 0);
  CHECK(added("pageable copy") == 1);
  CHECK(added("cudaDeviceSynchronize") == 0);
}

TEST_CASE("Memory of a device comes to an end") {
  emulator::set_device_bytes(size_t{1} << 20);
  cudaSetDevice(emulator::kDevices - 1);  // of which no other test has memory
  void* data = nullptr;
  CHECK(cudaMalloc(&data, size_t{2} << 20) == cudaErrorMemoryAllocation);
  CHECK(cudaPeekAtLastError() == cudaErrorMemoryAllocation);
  CHECK(cudaGetLastError() == cudaErrorMemoryAllocation);
  CHECK(cudaMalloc(&data, size_t{1} << 19) == cudaSuccess);
  size_t free = 0, total = 0;
  cudaMemGetInfo(&free, &total);
  CHECK(free == size_t{1} << 19);
  CHECK(total == size_t{1} << 20);
  cudaFree(data);
  cudaSetDevice(0);
  emulator::set_device_bytes(size_t{64} << 30);
}

TEST_CASE("Devices, and what they are said to be") {
  int devices = 0, current = -1;
  CHECK(cudaGetDeviceCount(&devices) == cudaSuccess);
  CHECK(devices == emulator::kDevices);
  CHECK(cudaSetDevice(devices) == cudaErrorInvalidDevice);
  static_cast<void>(cudaGetLastError());
  std::thread([&] {
    cudaSetDevice(3);
    cudaGetDevice(&current);
  }).join();
  CHECK(current == 3);
  cudaGetDevice(&current);
  CHECK(current == 0);
  cudaDeviceProp properties;
  CHECK(cudaGetDeviceProperties(&properties, 0) == cudaSuccess);
  CHECK(properties.major == 9);
  CHECK(properties.multiProcessorCount == 132);
}

TEST_CASE("Events tell times") {
  EmulatedStream stream;
  cudaEvent_t start, end;
  cudaEventCreate(&start);
  cudaEventCreate(&end);
  float milliseconds = -1;
  CHECK(cudaEventElapsedTime(&milliseconds, start, end) == cudaErrorInvalidResourceHandle);
  cudaEventRecord(start, stream.handle());
  cudaEventRecord(end, stream.handle());
  CHECK(cudaEventElapsedTime(&milliseconds, start, end) == cudaErrorNotReady);
  cudaEventSynchronize(end);
  CHECK(cudaEventElapsedTime(&milliseconds, start, end) == cudaSuccess);
  CHECK(milliseconds >= 0);
  cudaEventDestroy(start);
  cudaEventDestroy(end);
  while (cudaGetLastError() != cudaSuccess) {
  }
}

TEST_CASE("The runtime is not called inside a stream's work") {
  EmulatedStream stream;
  check_stops(
      [&] {
        cudaLaunchHostFunc(
            stream.handle(), [](void*) { cudaDeviceSynchronize(); }, nullptr);
        stream.wait();
      },
      {"cudaDeviceSynchronize is called inside a stream's work"});
}

TEST_CASE("Threads work on devices of their own, and share one") {
  for (bool shared : {false, true}) {
    std::vector<std::thread> threads;
    std::vector<char> right(4, 0);
    for (int i = 0; i < 4; ++i)
      threads.emplace_back([&, i] {
        cudaSetDevice(shared ? 2 : i);
        right[static_cast<size_t>(i)] = doubles(Fault::none) && doubles(Fault::none);
      });
    for (std::thread& thread : threads) thread.join();
    CHECK(right == std::vector<char>(4, 1));
  }
}

TEST_CASE("A stream waits for an event of another device") {
  EmulatedArray<float> here(std::vector<float>(kElements, 1.0f)), sum(kElements);
  EmulatedStream stream;
  cudaSetDevice(1);
  Event event;
  {
    EmulatedArray<float> x(std::vector<float>(kElements, 3.0f)), y(kElements);
    EmulatedStream other;
    ADAGATE_LAUNCH(scale, 4, 256, 0, other, x.data(), y.data(), kElements, 2.0f);
    cudaEventRecord(event.handle(), other.handle());
    cudaSetDevice(0);
    cudaStreamWaitEvent(stream.handle(), event.handle(), 0);
    cudaMemcpyPeerAsync(sum.data(), 0, y.data(), 1, kBytes, stream.handle());
    ADAGATE_LAUNCH(add, 4, 256, 0, stream, here.data(), sum.data(), kElements);
    stream.wait();
  }
  CHECK(sum.values() == std::vector<float>(kElements, 7.0f));
}

}  // namespace adagate::test
