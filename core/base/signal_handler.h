// Signal handlers that may interrupt generated code.
#pragma once

namespace adagate {

// Runs `handler` on `signal`, on a stack of its own, and restarts what it interrupts.
// Matrix-product kernels generated at run time keep data further below the stack pointer than the
// system spares when it calls a handler there: a handler on the same stack now and then corrupts
// their pointers. Call it on the main thread, which gets the signals sent to the process.
void handle_signal(int signal, void (*handler)(int));

// Whether the process was told to ignore it, as nohup does with SIGHUP.
bool is_ignored(int signal);

}  // namespace adagate
