// Ranks that are processes started by mpirun.
#pragma once

#include <memory>
#include <string_view>

#include "parallel/communicator.h"
#include "parallel/mpi_session.h"

namespace adagate {

// All ranks of MPI_COMM_WORLD. Ranks of one node work through shared memory; groups over several
// nodes through MPI messages, with the same order of sums and so the same bits. MPI must be running
// (MpiSession). Collective.
std::unique_ptr<Communicator> make_mpi_communicator(const MpiOptions& options = {});

// Notes for the other ranks of the node that this one ends with an error. Their collectives throw
// it; the first failure stays.
void report_failure(Communicator& world, int exit_code, std::string_view message);

// True for the first rank of the node that asks, which then tells the user of the failure.
bool claim_telling(Communicator& world);

// Tells the other ranks of the node that this one joins no further collective.
void leave_mpi_world(Communicator& world);

}  // namespace adagate
