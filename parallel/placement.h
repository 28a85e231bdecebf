// Which cores and how many threads a rank gets.
#pragma once

#include <functional>
#include <string>
#include <sys/types.h>
#include <vector>

#include "parallel/machine_limits.h"

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
  int node_cpus = 1;             // what the node's ranks share: cores, or the CPU quota if smaller
  bool oversubscribed = false;   // more ranks than that on this node
  std::string bound, complaint;  // see describe_threads() and configure_threads(); mostly empty
};

// own, parent: the cores this process and its parent (the launcher's daemon) may use. mpirun binds
// each rank to one core unless told otherwise; where the user did not ask for that, rank i of n
// gets the i-th n-th of the parent's cores, at least one; ranks beyond the number of cores share.
// requested: threads per rank from the config; 0: OMP_NUM_THREADS, else all the rank's cores, as
// far as the CPU quota, which the node's ranks share, keeps them busy.
Placement plan_placement(const LaunchEnvironment& environment, const std::vector<int>& own,
                         const std::vector<int>& parent, int requested, const CpuQuota& quota = {});

// The plan for this process; changes nothing. Throws Error on a number of threads that is none.
Placement plan_placement(int requested);

// "2 per rank", "1 per rank (CPU quota of 1.0)".
std::string describe_threads(const Placement& plan);

// Applies the plan to this process: call it before MPI and OpenMP start. Warns when the user wants
// more threads than there are CPUs.
Placement configure_threads(int requested);

}  // namespace adagate
