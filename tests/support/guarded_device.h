// A device for tests that is as strict as a GPU and computes what the CPU computes. Its memory
// can't be touched by the host: it is mapped without access, and open only while work that was
// launched runs. Launches are queued with their arguments copied, and run in order when somebody
// waits for them. New memory is filled with NaN. So what a GPU would get wrong now and then goes
// wrong here every time:
//   a read or write by the host          ends the process, with the last kernels' names;
//   arguments that point to the host     are refused, with the kernel's name;
//   a result used before it is written   is NaN.
// Each index is a device of its own, for one thread (rank) each.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "core/device/device.h"

namespace adagate::test {

constexpr int kGuardedDevices = 8;

// A guarded device; registers the backend on the first call.
Device guarded_device(int index = 0);

// How often each kernel has run on guarded devices in this process.
std::map<std::string, int64_t> guarded_launches();

// What the host's touching of guarded memory ends the process with; it prints to standard error.
constexpr int kGuardedExit = 86;

}  // namespace adagate::test
