// SIGTERM and SIGUSR1 ask a run to save a checkpoint and end in good order.
#pragma once

namespace adagate {

// Installs the handlers; they only set a flag. A second signal changes nothing.
void install_stop_signals();

// The signal that came in since the start, 0 if none.
int stop_signal();

// Forgets it, for a process that trains again.
void clear_stop_signal();

}  // namespace adagate
