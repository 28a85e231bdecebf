#include "core/device/device_phases.h"

#include <deque>
#include <optional>

#include "core/device/backend.h"

namespace adagate {
namespace {

class QueueClock final : public PhaseClock {
 public:
  QueueClock(Device device, void* first) : device_(device), backend_(backend_of(device)) {
    entered_.push_back({first, {}});
  }
  ~QueueClock() override {
    for (const Entry& entry : entered_) backend_.forget(entry.mark);
  }

  void enter(std::optional<Phase> phase) override {
    entered_.push_back({backend_.mark(device_.index), phase});
  }

  // The last entry stays: its phase goes on.
  PhaseSeconds take() override {
    PhaseSeconds seconds{};
    while (entered_.size() > 1) {
      auto passed = backend_.seconds_between(entered_[0].mark, entered_[1].mark);
      if (!passed) break;
      if (auto phase = entered_[0].phase) seconds[static_cast<size_t>(*phase)] += *passed;
      backend_.forget(entered_[0].mark);
      entered_.pop_front();
    }
    return seconds;
  }

 private:
  struct Entry {
    void* mark;  // where the queue enters the phase
    std::optional<Phase> phase;
  };
  const Device device_;
  Backend& backend_;
  std::deque<Entry> entered_;  // not yet taken, in order
};

}  // namespace

std::unique_ptr<PhaseClock> device_phase_clock(Device device) {
  if (device.is_cpu()) return nullptr;
  void* first = backend_of(device).mark(device.index);
  return first ? std::make_unique<QueueClock>(device, first) : nullptr;
}

}  // namespace adagate
