// Signs of life of long work, for the ranks that wait for its end.
#pragma once

namespace adagate {

// "This process is at work and does not hang." Work that may take minutes while other ranks wait
// (tokenizing, hashing, writing a checkpoint, evaluating) calls it for each piece that takes
// seconds at most. Any thread may; it takes nanoseconds.
void beat();

// What beat() does from now on, in the whole process; null: nothing, as at the start. `hook` must
// not throw.
void set_heartbeat(void (*hook)());

}  // namespace adagate
