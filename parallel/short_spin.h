// Threads that wait for the rest of their team spin in libgomp for about 5 ms before they sleep:
// beside other busy programs they take the cores from those they wait for. libgomp reads how long
// from the environment while the program is loaded, and only then; so the default is put there
// before any library starts, and taken out again afterwards.
#pragma once

namespace adagate {

// Puts GOMP_SPINCOUNT in place of a variable of `environment` (null-terminated, as the kernel gave
// it) that no library reads while it is loaded. Does nothing when the user has said how threads
// wait, or there is no such variable. Runs before the C library is initialised.
void lend_spin_count(char** environment);

// Puts that variable back, wherever `environment` has come to lie since.
void take_back_spin_count(char** environment);

}  // namespace adagate
