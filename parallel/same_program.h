// One program on all hosts. Included by the MPI sources only.
#pragma once

#include <string_view>

#include "parallel/mpi_calls.h"

namespace adagate {

// Collective, and the first thing that ranks tell each other: all later exchanges, shared memory
// above all, are those of this build. Throws the same Error on every rank when their executables
// are not the same bytes; it names `version` and host of two that differ. A build for another
// instruction set is another program, too: its sums round otherwise, and copies of a weight would
// drift apart.
void check_same_program(MPI_Comm world, std::string_view version);

}  // namespace adagate
