// Streams and events of the CUDA runtime.
#include <algorithm>
#include <chrono>
#include <cuda_runtime_api.h>

#include "tests/cuda/emulator/device.h"
#include "tests/cuda/emulator/errors.h"
#include "tests/cuda/emulator/faults.h"

using namespace adagate::emulator;

namespace {

bool is_default(cudaStream_t stream) {
  return stream == nullptr || stream == cudaStreamLegacy;
}

int64_t now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

bool is_done(const EventState& event) {
  return event.done.load() >= event.recorded.load();
}

}  // namespace

extern "C" {

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority) {
  count_call("cudaStreamCreate");
  *stream = Device::current().add_stream((flags & cudaStreamNonBlocking) == 0, priority);
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return cudaStreamCreateWithPriority(stream, flags, 0);
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithPriority(stream, cudaStreamDefault, 0);
}

// A GPU would end the stream's work later, too.
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  count_call("cudaStreamDestroy");
  if (is_default(stream)) return failed(cudaErrorInvalidResourceHandle);
  Device& device = Device::of(stream->device);
  device.wait_for(*stream);
  device.remove_stream(stream);
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  count_call("cudaStreamSynchronize");
  if (is_default(stream))
    Device::current().wait_for_all(true);
  else
    Device::of(stream->device).wait_for(*stream);
  return cudaSuccess;
}

// Whoever asks again and again sees the work go on.
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  count_call("cudaStreamQuery");
  if (is_default(stream)) return cudaSuccess;
  Device& device = Device::of(stream->device);
  device.step();
  return device.is_idle(*stream) ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaStreamGetPriority(cudaStream_t stream, int* priority) {
  count_call("cudaStreamGetPriority");
  *priority = is_default(stream) ? 0 : stream->priority;
  return cudaSuccess;
}

cudaError_t cudaStreamGetDevice(cudaStream_t stream, int* device) {
  count_call("cudaStreamGetDevice");
  *device = is_default(stream) ? Device::current().index() : stream->device;
  return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  count_call("cudaStreamWaitEvent");
  const int64_t record = event->state->recorded.load();
  auto ready = [state = event->state, record] { return state->done.load() >= record; };
  enqueue(stream, Work{"cudaStreamWaitEvent", ready, false});
  return cudaSuccess;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  count_call("cudaLaunchHostFunc");
  enqueue(stream, Work{"cudaLaunchHostFunc",
                       [=] {
                         function(data);
                         return true;
                       },
                       false});
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  count_call("cudaEventCreate");
  *event = new CUevent_st{std::make_shared<EventState>()};
  (*event)->state->timed = (flags & cudaEventDisableTiming) == 0;
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, cudaEventDefault);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  count_call("cudaEventDestroy");
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  count_call("cudaEventRecord");
  EventState& state = *event->state;
  state.device = is_default(stream) ? Device::current().index() : stream->device;
  const int64_t record = ++state.recorded;
  auto mark = [kept = event->state, record] {
    kept->nanoseconds = now();
    kept->done = std::max(record, kept->done.load());
    return true;
  };
  enqueue(stream, Work{"cudaEventRecord", mark, false});
  return cudaSuccess;
}
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned) {
  return cudaEventRecord(event, stream);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  count_call("cudaEventSynchronize");
  Device::of(event->state->device).wait([&] { return is_done(*event->state); });
  return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  count_call("cudaEventQuery");
  if (!is_done(*event->state)) Device::of(event->state->device).step();
  return is_done(*event->state) ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  count_call("cudaEventElapsedTime");
  const EventState &first = *start->state, &last = *end->state;
  if (!first.timed || !last.timed || first.recorded == 0 || last.recorded == 0)
    return failed(cudaErrorInvalidResourceHandle);
  if (!is_done(first) || !is_done(last)) return failed(cudaErrorNotReady);
  *milliseconds = static_cast<float>(last.nanoseconds - first.nanoseconds) * 1e-6f;
  return cudaSuccess;
}
}
