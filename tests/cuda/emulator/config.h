// How the emulator runs kernels. What a kernel computes must not depend on any of it.
#pragma once

#include <cstdint>

namespace adagate::emulator {

// In which order the threads of a block take their turns, from barrier to barrier, and the blocks
// of a grid. A barrier that is missing shows in at least one of the first two.
enum class Order : uint8_t { forward, reverse, random };

struct Config {
  Order order = Order::forward;
  uint64_t seed = 1;   // of random orders: of threads, of blocks, and of the streams of a device
  int os_threads = 1;  // that share the blocks of a grid
  // Device memory is open to the host only while work runs on it; off: always, which saves the time
  // that opening and closing it takes.
  bool guarded = true;
};

// At first what the environment says: ADAGATE_EMULATOR_ORDER (forward, reverse, random),
// ADAGATE_EMULATOR_SEED, ADAGATE_EMULATOR_THREADS, ADAGATE_EMULATOR_GUARDED (0 or 1). To be changed
// while no work is queued.
Config& config();

}  // namespace adagate::emulator
