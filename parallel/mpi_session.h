// The program's life under mpirun: MPI is started and ended here.
#pragma once

#include <memory>
#include <string_view>

#include "parallel/communicator.h"

namespace adagate {

// Ways a communicator may take between ranks of one node; all on in earnest, one by one in tests
// and benchmarks. Without any of them everything goes through MPI messages.
struct MpiOptions {
  bool shared_memory = true;    // allocate() gives memory that all ranks map; small data through it
  bool copy_from_peers = true;  // ordinary memory is read by the peers (process_vm_readv)
};

// Starts MPI when a launcher (mpirun, srun, ...; or ADAGATE_MPI=1) started this process, else there
// is one rank and MPI stays untouched. One session per process; it outlives all communicators. Only
// the thread that made it may call communicators.
class MpiSession {
 public:
  // `version`: of the program, for messages. Throws Error when the ranks run different programs.
  explicit MpiSession(std::string_view version = {});
  // Meets the other ranks, then ends MPI. While an exception unwinds it leaves MPI as it is; the
  // process then has to end, see below.
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  bool uses_mpi() const { return uses_mpi_; }
  // All ranks of the program. Made once.
  std::shared_ptr<Communicator> world() { return world_; }
  // Another communicator of all ranks. Collective.
  std::unique_ptr<Communicator> make_world(const MpiOptions& options);

 private:
  bool uses_mpi_ = false;
  std::shared_ptr<Communicator> world_;
};

// For a process whose session an exception has ended, so that all ranks end soon and the user reads
// one message; without such a session all of them do nothing and the rank tells.
// Tells the other ranks of the node: their collectives throw this error.
void report_failure(int exit_code, std::string_view message);
// True for the first rank of the node that asks: it prints the message.
bool claim_telling();

}  // namespace adagate
