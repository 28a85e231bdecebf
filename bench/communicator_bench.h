// Collectives by size.
#pragma once

#include "bench/table.h"
#include "parallel/communicator.h"

namespace adagate {

// Time and bandwidth (bytes of one rank's data over time) of each collective from 4 KiB to 64 MiB.
// Collective; times are this rank's medians of `rounds`.
BenchTable bench_communicator(Communicator& world, int64_t rounds);

}  // namespace adagate
