// Bounded waiting: how long a rank waits for the others, and what it can say about them.
#pragma once

#include <string_view>

namespace adagate {

// Seconds without a sign of life from any rank after which a collective that waits throws Error and
// names the ranks that it waits for, their hosts and notes; 600 at the start, 0: never. Signs of
// life are collectives, notes and beat() (core/base/heartbeat.h). A rank that has ended or aborted
// is noticed at once, whatever this says.
void set_collective_timeout(double seconds);
double collective_timeout();

// What this rank is doing ("step 120, backward"; at most 119 bytes are kept): other ranks quote it
// when they wait for this one in vain. Cheap enough for every phase of a step.
void set_progress_note(std::string_view note);

}  // namespace adagate
