// Where a step's time goes: scopes on a stack, each moment counted for the innermost one.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

namespace adagate {

// Those of a MoE layer hold its part of forward and of backward.
enum class Phase : uint8_t {
  other,      // all the rest
  data,       // waiting for the step's batches
  forward,    // without the MoE layers
  gate,       // scores, choice, weights, their gradients and statistics
  dispatch,   // rows sorted by expert and sent to the experts' ranks
  experts,    // the experts' products
  combine,    // rows sent back and summed by token
  backward,   // without the MoE layers; with what checkpointing computes again, and the gradients
              // of the head, which forward computes ahead
  reduce,     // sums over ranks of gradients, counts and the loss, and waiting for slower ranks
  optimizer,  // norm of the gradient, clipping, update
};
constexpr int kPhaseCount = 10;
constexpr std::string_view kPhaseNames[kPhaseCount] = {
    "other",   "data",    "forward",  "gate",   "dispatch",
    "experts", "combine", "backward", "reduce", "optimizer"};

using PhaseSeconds = std::array<double, kPhaseCount>;

// Time as it passes in the queue of a device, which the host runs ahead of.
class PhaseClock {
 public:
  virtual ~PhaseClock() = default;
  // What is queued from here on belongs to `phase`; nothing: to none.
  virtual void enter(std::optional<Phase> phase) = 0;
  // Seconds by phase of what the queue has done, as far as that is known without waiting for it,
  // and has not been taken before.
  virtual PhaseSeconds take() = 0;
};

// Exclusive seconds by phase of the calling thread (one per rank thread).
class PhaseTimer {
 public:
  using Clock = std::chrono::steady_clock;

  static PhaseTimer& current() {
    thread_local PhaseTimer timer;
    return timer;
  }

  // From here on take() tells that clock's times; null: the host's again.
  void use(std::unique_ptr<PhaseClock> clock) { device_ = std::move(clock); }

  // Time counts from here on.
  void start() {
    charge();
    seconds_ = {};
    if (device_) device_->enter(phase_);
  }

  // Seconds by phase since start(). A device's may come with a later take(): the host doesn't wait
  // for the end of the work. Its time does not count again before the next start().
  PhaseSeconds take() {
    charge();
    PhaseSeconds seconds = std::exchange(seconds_, {});
    if (!device_) return seconds;
    device_->enter({});
    return device_->take();
  }

  // Of the host, since start(), which goes on.
  const PhaseSeconds& seconds() {
    charge();
    return seconds_;
  }

  Phase enter(Phase phase) {
    charge();
    if (device_ && phase != phase_) device_->enter(phase);
    return std::exchange(phase_, phase);
  }

 private:
  void charge() {
    auto now = Clock::now();
    seconds_[static_cast<size_t>(phase_)] += std::chrono::duration<double>(now - since_).count();
    since_ = now;
  }

  Clock::time_point since_ = Clock::now();
  Phase phase_ = Phase::other;
  PhaseSeconds seconds_{};
  std::unique_ptr<PhaseClock> device_;
};

// Counts its lifetime, less that of scopes inside it, for `phase`.
class PhaseScope {
 public:
  explicit PhaseScope(Phase phase) : outer_(PhaseTimer::current().enter(phase)) {}
  ~PhaseScope() { PhaseTimer::current().enter(outer_); }
  PhaseScope(const PhaseScope&) = delete;
  PhaseScope& operator=(const PhaseScope&) = delete;

 private:
  Phase outer_;
};

}  // namespace adagate
