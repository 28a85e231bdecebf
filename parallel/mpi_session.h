// The program's life under mpirun: MPI is started and ended here.
#pragma once

#include <memory>

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
  MpiSession();
  // Meets the other ranks, then ends MPI.
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

}  // namespace adagate
