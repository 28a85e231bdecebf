// Ranks that are processes started by mpirun.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/mpi_session.h"

namespace adagate {

// All ranks of MPI_COMM_WORLD. Ranks of one node work through shared memory; groups over several
// nodes through MPI messages, with the same order of sums and so the same bits. MPI must be running
// (MpiSession). hosts: of each rank, as messages name them; empty: they name none. Collective.
std::unique_ptr<Communicator> make_mpi_communicator(const MpiOptions& options = {},
                                                    const std::vector<std::string>& hosts = {});

// The same for `world` as in mpi_session.h, where they are explained.
void report_failure(Communicator& world, int exit_code, std::string_view message);
bool is_told(Communicator& world);
bool claim_telling(Communicator& world);
void note_told(Communicator& world);

// Tells the other ranks of the node that this one joins no further collective.
void leave_mpi_world(Communicator& world);

}  // namespace adagate
