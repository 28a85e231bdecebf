// Signals that ask a run to end in good order: SIGTERM, SIGUSR1, SIGINT (Ctrl-C), SIGHUP.
#pragma once

#include <string_view>

namespace adagate {

// Installs the handlers, which only set a flag. SIGINT and SIGHUP stay ignored where they were so
// (nohup, a script's background jobs). A SIGINT that follows another stop signal, by more than the
// moment that a doubled one takes, ends the process at once with status 130; no other second signal
// changes anything. `notice` is written to standard error at a first SIGINT; it must stay alive.
void install_stop_signals(std::string_view notice = {});

// The first signal that came in since the start, 0 if none.
int stop_signal();

// Whether to end in good order: a signal came in, or nobody reads standard output any more.
bool stop_wanted();

// Forgets it, for a process that trains again.
void clear_stop_signal();

// What a run says that ends before it has trained anything.
inline constexpr std::string_view kStoppedEarly = "stopped by a signal before the first step";

// Throws Error with `what` and the exit status 128 + signal if one has come in.
void check_not_stopped(std::string_view what);

}  // namespace adagate
