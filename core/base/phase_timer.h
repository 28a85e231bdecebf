// Where a step's time goes: scopes on a stack, each moment counted for the innermost one.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
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

// Exclusive seconds by phase of the calling thread (one per rank thread).
class PhaseTimer {
 public:
  using Clock = std::chrono::steady_clock;

  static PhaseTimer& current() {
    thread_local PhaseTimer timer;
    return timer;
  }

  // Seconds by phase since the last take(), which starts over.
  std::array<double, kPhaseCount> take() {
    charge();
    return std::exchange(seconds_, {});
  }

  // The same, which goes on.
  const std::array<double, kPhaseCount>& seconds() {
    charge();
    return seconds_;
  }

  Phase enter(Phase phase) {
    charge();
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
  std::array<double, kPhaseCount> seconds_{};
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
