#include "parallel/placement.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sched.h>
#include <string_view>
#include <unistd.h>

#include "core/base/counted.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "parallel/spin_governor.h"

#ifdef _OPENMP
#include <omp.h>
#endif

namespace adagate {
namespace {

int number_or(const char* text, int otherwise) {
  if (!text || !*text) return otherwise;
  char* end;
  long value = std::strtol(text, &end, 10);
  return end == text ? otherwise : static_cast<int>(value);
}

// The first of the variables that is set.
const char* first_of(const Environment& get, std::initializer_list<const char*> names) {
  for (const char* name : names)
    if (const char* value = get(name); value && *value) return value;
  return nullptr;
}

std::vector<int> cores_of(pid_t process) {
  std::vector<int> cores;
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(process, sizeof(set), &set) != 0) return cores;
  for (int c = 0; c < CPU_SETSIZE; ++c)
    if (CPU_ISSET(c, &set)) cores.push_back(c);
  return cores;
}

}  // namespace

pid_t launcher_process() {
  constexpr std::string_view kLaunchers[] = {"mpirun",  "mpiexec", "orterun", "orted",
                                             "prterun", "prted",   "prte",    "slurmstepd"};
  pid_t process = getppid();
  for (int level = 0; level < 8 && process > 1; ++level) {
    // "pid (name) state parent ..."; a name may hold spaces and brackets.
    std::ifstream file(fmt::format("/proc/{}/stat", process));
    std::string text((std::istreambuf_iterator<char>(file)), {});
    size_t open = text.find('('), close = text.rfind(')');
    if (open == std::string::npos || close == std::string::npos) break;
    std::string name = text.substr(open + 1, close - open - 1);
    if (std::find(std::begin(kLaunchers), std::end(kLaunchers), name) != std::end(kLaunchers))
      return process;
    process = number_or(text.c_str() + std::min(close + 4, text.size()), 0);
  }
  return getppid();
}

LaunchEnvironment read_launch_environment(const Environment& get) {
  // Rank and number of ranks by launcher. A batch script of Slurm sets SLURM_PROCID too; only a
  // step has ranks.
  constexpr const char* kRanks[][2] = {{"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"},
                                       {"PMI_RANK", "PMI_SIZE"},  // MPICH's hydra
                                       {"PMI_ID", "PMI_SIZE"},
                                       {"MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"},
                                       {"PALS_RANKID", "PALS_SIZE"},
                                       {"FLUX_TASK_RANK", "FLUX_JOB_SIZE"},
                                       {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS"}};
  LaunchEnvironment e;
  e.open_mpi = get("OMPI_COMM_WORLD_SIZE") != nullptr;
  e.launched = e.open_mpi ||
               first_of(get, {"PMIX_RANK", "PMI_RANK", "PMI_ID", "MV2_COMM_WORLD_RANK",
                              "PALS_RANKID", "FLUX_TASK_RANK"}) ||
               (get("SLURM_STEP_ID") && number_or(get("SLURM_STEP_NUM_TASKS"), 1) > 1);
  for (auto [rank_name, ranks_name] : kRanks) {
    int rank = number_or(get(rank_name), -1), ranks = number_or(get(ranks_name), -1);
    if (!e.launched || rank < 0 || rank >= ranks) continue;
    e.rank = rank;
    e.ranks = ranks;
    break;
  }
  e.local_rank = number_or(
      first_of(get, {"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "MV2_COMM_WORLD_LOCAL_RANK",
                     "PMI_LOCAL_RANK", "PALS_LOCAL_RANKID", "SLURM_LOCALID"}),
      0);
  e.local_size = number_or(
      first_of(get, {"OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "MV2_COMM_WORLD_LOCAL_SIZE",
                     "PMI_LOCAL_SIZE", "PALS_LOCAL_SIZE", "SLURM_STEP_TASKS_PER_NODE"}),
      1);
  if (!e.launched) e.local_rank = 0, e.local_size = 1;
  e.local_size = std::max({e.local_size, e.local_rank + 1, 1});
  e.omp_threads = std::max(0, number_or(get("OMP_NUM_THREADS"), 0));
  e.user_bound = first_of(get, {"OMP_PLACES", "OMP_PROC_BIND", "GOMP_CPU_AFFINITY", "KMP_AFFINITY",
                                "OMPI_MCA_hwloc_base_binding_policy", "OMPI_MCA_hwloc_base_cpu_set",
                                "PRTE_MCA_hwloc_default_binding_policy", "SLURM_CPU_BIND_TYPE"});
  return e;
}

LaunchEnvironment read_launch_environment() {
  return read_launch_environment([](const char* name) { return std::getenv(name); });
}

bool started_by_launcher() {
  const char* forced = std::getenv("ADAGATE_MPI");
  if (forced && *forced) return std::string_view(forced) != "0";
  return read_launch_environment().launched;
}

Placement plan_placement(const LaunchEnvironment& e, const std::vector<int>& own,
                         const std::vector<int>& parent, int requested, const CpuQuota& quota) {
  Placement plan;
  bool bound_by_launcher = e.launched && !parent.empty() && own != parent;
  // A binding that is this rank's own: the user's, or another launcher's careful one.
  bool keep = e.user_bound || (bound_by_launcher && !e.open_mpi);
  const std::vector<int>& all = keep || parent.empty() || !e.launched ? own : parent;
  auto cores = static_cast<int>(all.size());
  bool place = !keep && e.launched && cores > 0;
  int ranks = keep && bound_by_launcher ? 1 : e.local_size;  // that share `all`
  // This rank's part of `total`; what is left over goes to the first ranks, one each.
  auto share = [&](int total, int among) {
    return std::max(1, total / among + (place && e.local_rank < total % among));
  };
  if (place && ranks <= cores) {
    int first = cores / ranks * e.local_rank + std::min(e.local_rank, cores % ranks);
    for (int c = first; c < first + share(cores, ranks); ++c)
      plan.cores.push_back(all[static_cast<size_t>(c)]);
  } else if (ranks > 1 && ranks > cores) {
    // More ranks than cores are better moved about than nailed to one core each in unequal numbers.
    plan.cores = all;
  }
  // Where the launcher has divided the cores, the quota is still for all ranks of the node.
  int paid = quota.threads(std::max(1, cores) * e.local_size);
  plan.node_cpus = std::min(std::max(1, cores) * e.local_size / ranks, paid);
  plan.oversubscribed = e.local_size > plan.node_cpus;
  int by_cores = share(cores, ranks), by_quota = share(paid, e.local_size);
  bool quota_binds = quota.cpus > 0 && by_quota < by_cores;
  std::string bound = quota_binds ? fmt::format("CPU quota of {:.1f}", quota.cpus) : "";
  int most = std::min(by_cores, by_quota), wanted = requested > 0 ? requested : e.omp_threads;
  plan.threads = wanted > 0 ? wanted : most;
  if (wanted == 0) plan.bound = bound;
  if (wanted > most && e.local_rank == 0) {
    plan.complaint = fmt::format(
        "{} threads per rank, but {} for {}: more than {} per rank wait for each other", wanted,
        quota_binds ? fmt::format("a {} ({})", bound, quota.file) : counted(cores, "core"),
        counted(quota_binds ? e.local_size : ranks, "rank"), most);
  }
  return plan;
}

Placement plan_placement(int requested) {
  check(requested >= 0, "threads = {}: use 0 for all cores of the rank, or a positive number",
        requested);
  auto environment = read_launch_environment();
  auto own = cores_of(0);
  auto parent = environment.launched ? cores_of(launcher_process()) : own;
  constexpr int kMost = 4096;
  check(requested > 0 || environment.omp_threads <= kMost,
        "OMP_NUM_THREADS is {}: use {} threads at most", environment.omp_threads, kMost);
  return plan_placement(environment, own, parent, requested, read_cpu_quota());
}

std::string describe_threads(const Placement& plan) {
  return fmt::format("{} per rank{}", plan.threads,
                     plan.bound.empty() ? "" : fmt::format(" ({})", plan.bound));
}

Placement configure_threads(int requested) {
#ifdef _OPENMP
  int processors = omp_get_num_procs();  // as libgomp knows them, before this rank is bound
#endif
  Placement plan = plan_placement(requested);
  if (!plan.cores.empty()) {
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int c : plan.cores) CPU_SET(c, &set);
    if (sched_setaffinity(0, sizeof(set), &set) != 0)
      log::warn("cannot bind this rank to its cores; it runs where the launcher put it");
  }
  // Ranks that wait for MPI must give their core to the ranks that work. The user's word comes
  // first.
  if (plan.oversubscribed) setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
  if (!plan.complaint.empty()) log::warn("{}", plan.complaint);
#ifdef _OPENMP
  omp_set_num_threads(plan.threads);
  govern_spinning(plan.threads, processors);
#endif
  return plan;
}

}  // namespace adagate
