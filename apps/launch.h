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

// Whether the ranks of this command all start MPI: one that fails before can then tell the others
// by that. True at the start.
void set_meets_ranks(bool meets);

// Prints `message` once for all ranks, whatever their hosts, and ends the process, without
// destructors. Rank 0 prints at once. Another rank first gives rank 0 1.6 seconds in which to fail
// likewise, which the ranks tell each other (parallel/node_link.h) and mpirun tells by a signal; it
// then leaves silently, and sees to it that mpirun ends soon, else it prints `message` with its
// rank. When a rank leaves with an error, the launcher ends the others.
[[noreturn]] void end_with_error(const std::string& message, int exit_code);

// Ends the process from a thread beside the one that is stuck in the start of MPI: rank 0 prints
// `message` at once, another rank when the launcher has not ended it within 8 seconds.
void end_stuck_start(const std::string& message);

}  // namespace adagate
