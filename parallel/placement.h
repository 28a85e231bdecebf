// Which cores and how many threads a rank gets.
#pragma once

#include <functional>
#include <string>
#include <sys/types.h>
#include <vector>

namespace adagate {

// What the launcher and the user said through the environment.
struct LaunchEnvironment {
  bool launched = false;  // by mpirun, srun or another launcher
  bool open_mpi = false;
  int rank = 0;  // among all ranks
  int ranks = 1;
  int local_rank = 0;  // among the ranks of this node
  int local_size = 1;
  int omp_threads = 0;      // OMP_NUM_THREADS; 0: not set
  bool user_bound = false;  // the user chose a binding; it is left alone
};

using Environment = std::function<const char*(const char*)>;
LaunchEnvironment read_launch_environment(const Environment& get);
LaunchEnvironment read_launch_environment();  // of this process

// True under a launcher, or with ADAGATE_MPI=1: the program is one of several ranks.
bool started_by_launcher();

// The ancestor that is a launcher's daemon, past any wrapper script in between; else the parent.
pid_t launcher_process();

struct Placement {
  std::vector<int> cores;  // where this rank runs; empty: leave its binding as it is
  int threads = 1;
  bool oversubscribed = false;  // more ranks than cores on this node
};

// own, parent: the cores this process and its parent (the launcher's daemon) may use. mpirun binds
// each rank to one core unless told otherwise; where the user did not ask for that, rank i of n
// gets the i-th n-th of the parent's cores, at least one; ranks beyond the number of cores share.
// requested: threads per rank from the config; 0: OMP_NUM_THREADS, else all the rank's cores.
Placement plan_placement(const LaunchEnvironment& environment, const std::vector<int>& own,
                         const std::vector<int>& parent, int requested);

// Applies the plan to this process: call it before MPI and OpenMP start. Returns the threads per
// rank.
int configure_threads(int requested);

}  // namespace adagate
