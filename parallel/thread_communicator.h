// Ranks that are threads of one process: the whole distributed program in a test or a debugger.
#pragma once

#include <functional>
#include <memory>

#include "parallel/communicator.h"

namespace adagate {

// Runs `body` on `ranks` threads, each with the communicator of all of them, and joins them. When a
// rank throws, the others' collectives throw too, and the first error is thrown again here, with
// "rank N: " before its message. Each rank's OpenMP team gets its share of the cores.
void run_ranks(int ranks, const std::function<void(std::shared_ptr<Communicator>)>& body);

}  // namespace adagate
