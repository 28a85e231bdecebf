// The program's life under mpirun: MPI is started and ended here.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/communicator.h"

namespace adagate {

// Ways a communicator may take between ranks of one node; all on in earnest, one by one in tests
// and benchmarks. Without any of them everything goes through MPI messages.
struct MpiOptions {
  bool shared_memory = true;    // allocate() gives memory that all ranks map; small data through it
  bool copy_from_peers = true;  // ordinary memory is read by the peers (process_vm_readv)
};

// How MPI is started.
struct StartOptions {
  double timeout = 60;  // seconds for each stage of the start; 0: no bound
  // Called on another thread when MPI itself is stuck; must end the process. Default: prints the
  // message and exits with 1.
  std::function<void(const std::string& message)> give_up = {};
  std::string version = {};  // of the program, for messages
};

// Starts MPI when a launcher (mpirun, srun, ...; or ADAGATE_MPI=1) started this process, else there
// is one rank and MPI stays untouched. One session per process; it outlives all communicators. Only
// the thread that made it may call communicators.
class MpiSession {
 public:
  // Throws Error on all ranks when one has failed before (tell_failure_at_start), when hosts can't
  // reach each other within the timeout, and when the ranks run different programs.
  explicit MpiSession(const StartOptions& options = {});
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
  std::vector<std::string> hosts_;  // of each rank; empty: all on one
  std::shared_ptr<Communicator> world_;
};

// For a process whose session an exception has ended, so that all ranks end soon and the user reads
// one message (parallel/node_link.h has the whole protocol); without such a session all of them do
// nothing and the rank tells.
// Tells the other ranks: their collectives throw this error.
void report_failure(int exit_code, std::string_view message);
// True when some rank has told the user: this one ends in silence. Asks the other nodes.
bool is_told();
// True for the first rank of the node that asks: it prints the message.
bool claim_telling();
// The message is printed: tells the other nodes.
void note_told();

// True once this process has begun to start MPI.
bool start_was_tried();

// For a rank that fails before it made a session, while the others make theirs or fail as well: the
// first exchange tells them. True when this rank is the one to print its message; the others know
// of it. `options` as in MpiSession.
bool tell_failure_at_start(const StartOptions& options, int exit_code, const std::string& message);

}  // namespace adagate
