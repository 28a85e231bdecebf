// How the emulator ends the process: what is wrong, with the kernel, block and thread that did it,
// goes to standard error.
#pragma once

#include <string>

namespace adagate::emulator {

constexpr int kEmulatorExit = 87;

// Ends the process with kEmulatorExit; names the CUDA thread that runs, if one does.
[[noreturn]] void stop(const std::string& message);

// Makes bad accesses of kernels, and accesses of the host to device memory, end the process like
// stop(). To be called again and again: test frameworks take the signals for themselves.
void watch_for_faults();

}  // namespace adagate::emulator
