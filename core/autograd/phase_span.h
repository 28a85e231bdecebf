// Counts a stretch of a forward pass, and the backward of the ops recorded in it, for one phase.
#pragma once

#include <memory>

#include "core/autograd/tape.h"
#include "core/base/phase_timer.h"

namespace adagate {

// Like PhaseScope; besides, markers on the tape switch the phase when backward enters the stretch
// (at its end) and leaves it (at its beginning).
class PhaseSpan {
 public:
  explicit PhaseSpan(Phase phase) : phase_(phase), scope_(phase) {
    if (!Tape::current()) return;
    outer_ = std::make_shared<Phase>(Phase::backward);
    on_backward([outer = outer_] { PhaseTimer::current().enter(*outer); });
  }
  ~PhaseSpan() {
    if (!outer_ || !Tape::current()) return;
    on_backward([outer = outer_, phase = phase_] { *outer = PhaseTimer::current().enter(phase); });
  }
  PhaseSpan(const PhaseSpan&) = delete;
  PhaseSpan& operator=(const PhaseSpan&) = delete;

 private:
  Phase phase_;
  PhaseScope scope_;
  std::shared_ptr<Phase> outer_;
};

}  // namespace adagate
