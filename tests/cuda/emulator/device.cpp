#include "tests/cuda/emulator/device.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <thread>

#include "core/base/error.h"
#include "tests/cuda/emulator/config.h"
#include "tests/cuda/emulator/engine.h"
#include "tests/cuda/emulator/faults.h"

namespace adagate::emulator {
namespace {

constexpr std::chrono::seconds kPatience{120};

std::array<std::atomic<Device*>, kDevices> devices;
std::mutex devices_mutex;
constinit thread_local int current_device = 0;

// Names what runs for messages, unless a kernel does it better.
class Running {
 public:
  Running(Device& device, const char* name) : device_(device) {
    device_.running = name;
    running_kernel = name;
  }
  ~Running() {
    device_.running = "none";
    running_kernel = nullptr;
  }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

 private:
  Device& device_;
};

}  // namespace

Device& Device::of(int index) {
  auto& place = devices.at(static_cast<size_t>(index));
  if (Device* device = place.load()) return *device;
  std::lock_guard lock(devices_mutex);
  if (!place.load()) place = new Device(index);  // as long as the process
  return *place.load();
}

Device& Device::current() {
  return of(current_device);
}
void Device::set_current(int index) {
  current_device = index;
}

Device* Device::holding(const void* address) {
  for (auto& place : devices) {
    Device* device = place.load();
    if (device && device->memory_.spans(address)) return device;
  }
  return nullptr;
}

cudaStream_t Device::add_stream(bool blocking, int priority) {
  std::lock_guard lock(mutex_);
  streams_.push_back(std::make_unique<CUstream_st>(CUstream_st{index_, blocking, priority, {}}));
  return streams_.back().get();
}

void Device::remove_stream(cudaStream_t stream) {
  std::lock_guard lock(mutex_);
  std::erase_if(streams_, [&](auto& own) { return own.get() == stream; });
}

bool Device::has_stream(cudaStream_t stream) {
  std::lock_guard lock(mutex_);
  return std::any_of(streams_.begin(), streams_.end(),
                     [&](auto& own) { return own.get() == stream; });
}

void Device::push(CUstream_st& stream, Work work) {
  std::lock_guard lock(mutex_);
  launched = work.name;
  stream.queue.push_back(std::move(work));
}

bool Device::is_idle(const CUstream_st& stream) {
  std::lock_guard lock(mutex_);
  return stream.queue.empty();
}

void Device::set_open(bool open) {
  open = open || !config().guarded;
  if (open == open_) return;
  open_ = open;
  open ? memory_.open() : memory_.close();
}

bool Device::step_locked() {
  if (!seeded_) random_.seed(config().seed * kDevices + static_cast<uint64_t>(index_));
  seeded_ = true;
  ready_.clear();
  for (auto& stream : streams_)
    if (!stream->queue.empty()) ready_.push_back(stream.get());
  std::shuffle(ready_.begin(), ready_.end(), random_);
  for (CUstream_st* stream : ready_) {
    Work& work = stream->queue.front();
    set_open(work.on_device);
    Running names(*this, work.name);
    if (!work.run()) continue;
    stream->queue.pop_front();
    return true;
  }
  return false;
}

bool Device::try_step() {
  std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock) return false;
  bool moved = step_locked();
  set_open(false);
  return moved;
}

bool Device::step_others() {
  bool moved = false;
  for (auto& place : devices) {
    Device* other = place.load();
    if (other && other != this) moved |= other->try_step();
  }
  return moved;
}

void Device::step() {
  if (!try_step()) step_others();
}

void Device::wait(const std::function<bool()>& done) {
  using Clock = std::chrono::steady_clock;
  auto last_move = Clock::now();
  for (;;) {
    bool moved = false;
    {
      std::lock_guard lock(mutex_);
      bool over;
      while (!(over = done()) && step_locked()) moved = true;
      set_open(false);
      if (over) return;
    }
    moved |= step_others();
    if (moved) {
      last_move = Clock::now();
    } else if (Clock::now() - last_move > kPatience) {
      stop(fmt::format("device {}: nothing has gone on for {} s; launched last: {}", index_,
                       kPatience.count(), static_cast<const char*>(launched)));
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
  }
}

void Device::wait_for(const CUstream_st& stream) {
  wait([&] { return stream.queue.empty(); });
}

void Device::wait_for_all(bool blocking_only) {
  wait([this, blocking_only] {
    return std::all_of(streams_.begin(), streams_.end(), [&](auto& stream) {
      return stream->queue.empty() || (blocking_only && !stream->blocking);
    });
  });
}

void enqueue(cudaStream_t stream, Work work) {
  watch_for_faults();
  if (stream == cudaStreamPerThread) stop("the stream per thread is not emulated");
  if (stream && stream != cudaStreamLegacy) {
    Device::of(stream->device).push(*stream, std::move(work));
    return;
  }
  Device& device = Device::current();
  device.wait_for_all(true);
  cudaStream_t once = device.add_stream(true, 0);
  device.push(*once, std::move(work));
  device.wait_for(*once);
  device.remove_stream(once);
}

void enqueue(cudaStream_t stream, const char* name, std::function<bool()> run) {
  enqueue(stream, Work{name, std::move(run)});
}

bool is_device_memory(const void* first, size_t bytes) {
  for (auto& place : devices) {
    Device* device = place.load();
    if (device && device->memory().holds(first, bytes)) return true;
  }
  return false;
}

}  // namespace adagate::emulator
