// A GPU for tests: an emulated one in test_cuda, a real one in test_gpu.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "core/device/device.h"

namespace adagate::test {

// Registers the backend on the first call. Indices beyond the number of GPUs share them.
Device gpu(int index = 0);

// In which order threads and blocks run from here on: 0 forward, 1 reverse, others random. A real
// GPU has an order of its own.
void order_threads(uint64_t order);

// Whether the host's touching of device memory ends the process. A real GPU's can't be touched.
void guard_memory(bool guarded);

// Calls of the CUDA runtime so far that a warm step must not make, by name; a real GPU counts none.
std::map<std::string, int64_t> costly_calls();

}  // namespace adagate::test
