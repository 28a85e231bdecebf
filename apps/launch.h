// This process among those that a launcher (mpirun, srun) started, known before MPI is.
#pragma once

#include <string>

#include "parallel/mpi_session.h"

namespace adagate {

struct Launch {
  int rank = 0;
  int ranks = 1;
};

// From the launcher's environment variables; a process started by hand is rank 0 of 1.
Launch launch_from_environment();

// Throws Error when MPI counts the ranks otherwise: under a launcher that is not known, every rank
// would take itself for the only one.
void check_launch(MpiSession& session);

// From now on, a rank other than 0 takes note of mpirun's sign that another rank has ended badly.
void notice_ending_ranks();

// Prints `message` once for all ranks and ends the process, without destructors. Rank 0 prints at
// once. Another rank first gives rank 0 1.6 seconds in which to fail likewise, which mpirun tells
// by a signal; it then leaves silently, and sees to it that mpirun ends soon, else it prints
// `message` with its rank. When a rank leaves with an error, the launcher ends the others.
[[noreturn]] void end_with_error(const std::string& message, int exit_code);

}  // namespace adagate
