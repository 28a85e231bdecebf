// The first exchange between the ranks of a run: who is where, whether all can reach each other,
// and whether one of them has failed before MPI started.
#pragma once

#include <string>
#include <vector>

namespace adagate {

struct Hello {
  std::string host;
  int exit_code = 0;
  std::string error;  // empty: this rank is well
};

// Collective over MPI_COMM_WORLD; returns what all ranks say, in their order, once each has heard
// from every other one. When that takes longer than `seconds` (0: no bound), throws Error on the
// rank that is to tell: it names the hosts that can't reach each other. On the others it sets
// `told` first, if they may be silent: the reports go another way than messages, over mpirun's
// own connections, where MPI has such a service (MPI_Publish_name).
std::vector<Hello> exchange_hellos(const Hello& own, double seconds, bool& told);

// One rank's report when the time is up.
struct StartReport {
  int rank = 0;
  std::string host;         // empty: not known
  std::vector<int> silent;  // ranks from which nothing has come
};
// What the user reads: which hosts have no way to each other, and the remedy. reports: not empty.
std::string unreachable_message(const std::vector<StartReport>& reports, int ranks, double seconds);

}  // namespace adagate
