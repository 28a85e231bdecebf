// One emulated device: its memory, and streams whose work waits until somebody waits for it. Then
// streams advance in random order: what is not ordered by a stream or an event happens in every
// order, over the seeds.
#pragma once

#include <atomic>
#include <cstdint>
#include <cuda_runtime_api.h>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <vector>

#include "tests/cuda/emulator/memory.h"
#include "tests/cuda/emulator/runtime.h"

namespace adagate::emulator {

// A piece of a stream's work.
struct Work {
  const char* name;
  std::function<bool()> run;  // false: it can't be done yet, and is tried again
  bool on_device = true;      // may touch device memory
};

// What all copies of an event's handle and all that wait for it know.
struct EventState {
  std::atomic<int64_t> recorded{0}, done{0};  // numbers of records
  std::atomic<int64_t> nanoseconds{0};        // when the last was done
  std::atomic<int> device{0};                 // that it was recorded on
  bool timed = true;
};

}  // namespace adagate::emulator

struct CUstream_st {
  int device;
  bool blocking;  // is ordered against the default stream
  int priority;
  std::deque<adagate::emulator::Work> queue;
};
struct CUevent_st {
  std::shared_ptr<adagate::emulator::EventState> state;
};

namespace adagate::emulator {

class Device {
 public:
  static Device& of(int index);
  // The calling thread's.
  static Device& current();
  static void set_current(int index);
  // Whose memory an address is, or null. Takes no lock.
  static Device* holding(const void* address);

  int index() const { return index_; }
  DeviceMemory& memory() { return memory_; }

  cudaStream_t add_stream(bool blocking, int priority);
  void remove_stream(cudaStream_t stream);
  bool has_stream(cudaStream_t stream);
  void push(CUstream_st& stream, Work work);

  // Runs work until done(), which is called with the device locked. Where nothing of this device
  // can go on, work of other devices does.
  void wait(const std::function<bool()>& done);
  void wait_for(const CUstream_st& stream);
  void wait_for_all(bool blocking_only = false);
  // One piece of work of any stream, if one can be done.
  void step();
  bool is_idle(const CUstream_st& stream);

  const char* volatile launched = "none";
  const char* volatile running = "none";

 private:
  explicit Device(int index) : index_(index) {}
  bool step_locked();
  bool try_step();
  bool step_others();
  void set_open(bool open);

  const int index_;
  DeviceMemory memory_;
  std::mutex mutex_;
  bool open_ = false;
  bool seeded_ = false;
  std::mt19937_64 random_;
  std::vector<std::unique_ptr<CUstream_st>> streams_;
  std::vector<CUstream_st*> ready_;  // of step_locked()
};

// Into a stream, or at once, after all blocking streams, where it is the default stream.
void enqueue(cudaStream_t stream, Work work);

// Counts a call of the API; stops where none is allowed, that is inside a stream's work.
void count_call(const char* name);

}  // namespace adagate::emulator
