// How long ranks wait for each other, and the start of MPI as all commands want it.
#pragma once

#include <CLI/App.hpp>

#include "parallel/mpi_session.h"

namespace adagate {

struct RankOptions {
  double timeout = 600;       // of parallel/watchdog.h, seconds
  double start_timeout = 60;  // of StartOptions, seconds
};

// --timeout and --start-timeout, for commands without a configuration.
void add_rank_options(CLI::App& command, RankOptions& options);

// For MpiSession, after setting the bound of collectives: StartOptions that end with one message.
StartOptions start_options(const RankOptions& options);

}  // namespace adagate
