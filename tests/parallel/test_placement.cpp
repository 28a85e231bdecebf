// Cores and threads per rank, from made-up launchers and machines.
#include <map>
#include <string>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/error.h"
#include "parallel/placement.h"
#include "tests/support/catch.h"

using namespace adagate;

namespace {

using Cores = std::vector<int>;

LaunchEnvironment environment_of(std::map<std::string, std::string> variables) {
  return read_launch_environment([&](const char* name) -> const char* {
    auto it = variables.find(name);
    return it == variables.end() ? nullptr : it->second.c_str();
  });
}

std::map<std::string, std::string> open_mpi(int rank, int size) {
  return {{"OMPI_COMM_WORLD_SIZE", std::to_string(size)},
          {"OMPI_COMM_WORLD_LOCAL_RANK", std::to_string(rank)},
          {"OMPI_COMM_WORLD_LOCAL_SIZE", std::to_string(size)}};
}

}  // namespace

TEST_CASE("placement: a program started alone keeps its binding and uses its cores") {
  auto plan = plan_placement(environment_of({}), {2, 3, 5}, {0, 1, 2, 3, 4, 5}, 0);
  CHECK(plan.cores.empty());
  CHECK(plan.threads == 3);
  CHECK(plan_placement(environment_of({{"OMP_NUM_THREADS", "2"}}), {2, 3, 5}, {}, 0).threads == 2);
  CHECK(plan_placement(environment_of({{"OMP_NUM_THREADS", "2"}}), {2, 3, 5}, {}, 7).threads == 7);
  CHECK(plan_placement(environment_of({{"OMP_NUM_THREADS", "nonsense"}}), {2, 3}, {}, 0).threads ==
        2);
  // Variables of a launcher's leftovers do not make a launch.
  CHECK_FALSE(environment_of({{"SLURM_PROCID", "0"}, {"SLURM_LOCALID", "3"}}).launched);
  CHECK(environment_of({{"SLURM_LOCALID", "3"}}).local_rank == 0);
}

TEST_CASE("placement: every launcher's rank and number of ranks") {
  const char* names[][2] = {{"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"},
                            {"PMI_RANK", "PMI_SIZE"},
                            {"PMI_ID", "PMI_SIZE"},
                            {"MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"},
                            {"PALS_RANKID", "PALS_SIZE"},
                            {"FLUX_TASK_RANK", "FLUX_JOB_SIZE"}};
  for (auto [rank, ranks] : names) {
    CAPTURE(rank);
    auto e = environment_of({{rank, "2"}, {ranks, "5"}});
    CHECK(e.launched);
    CHECK(e.rank == 2);
    CHECK(e.ranks == 5);
    CHECK(environment_of({{rank, "5"}, {ranks, "5"}}).ranks == 1);
    CHECK(environment_of({{rank, "x"}, {ranks, "5"}}).ranks == 1);
  }
  auto slurm = environment_of(
      {{"SLURM_PROCID", "3"}, {"SLURM_STEP_NUM_TASKS", "4"}, {"SLURM_STEP_ID", "0"}});
  CHECK(slurm.rank == 3);
  CHECK(slurm.ranks == 4);
  auto batch_script = environment_of({{"SLURM_PROCID", "0"}, {"SLURM_STEP_NUM_TASKS", "4"}});
  CHECK(batch_script.ranks == 1);
  CHECK(environment_of({}).ranks == 1);
}

TEST_CASE("placement: mpirun's one-core binding is undone and the cores are shared out") {
  Cores all = {0, 1, 2, 3, 4, 5, 6, 7};
  auto plan = plan_placement(environment_of(open_mpi(0, 1)), {0}, all, 0);
  CHECK(plan.cores == all);
  CHECK(plan.threads == 8);
  plan = plan_placement(environment_of(open_mpi(1, 2)), {1}, all, 0);
  CHECK(plan.cores == Cores{4, 5, 6, 7});
  CHECK(plan.threads == 4);
  // Eight cores among three ranks: 3, 3, 2, and all different.
  Cores seen;
  for (int r = 0; r < 3; ++r) {
    plan = plan_placement(environment_of(open_mpi(r, 3)), {r}, all, 0);
    CHECK(plan.threads == (r < 2 ? 3 : 2));
    CHECK_FALSE(plan.oversubscribed);
    seen.insert(seen.end(), plan.cores.begin(), plan.cores.end());
  }
  CHECK(seen == all);
  // Cores the user took away from mpirun stay taken away.
  plan = plan_placement(environment_of(open_mpi(1, 2)), {6}, {4, 5, 6, 7}, 0);
  CHECK(plan.cores == Cores{6, 7});
}

TEST_CASE("placement: more ranks than cores get one thread each and run anywhere") {
  for (int r = 0; r < 4; ++r) {
    auto plan = plan_placement(environment_of(open_mpi(r, 4)), {0, 1}, {0, 1}, 0);
    CHECK(plan.oversubscribed);
    CHECK(plan.threads == 1);
    CHECK(plan.cores == Cores{0, 1});
  }
}

TEST_CASE("placement: a binding the user asked for is left alone") {
  Cores all = {0, 1, 2, 3};
  auto variables = open_mpi(1, 2);
  variables["OMPI_MCA_hwloc_base_binding_policy"] = "core";
  auto plan = plan_placement(environment_of(variables), {1}, all, 0);
  CHECK(plan.cores.empty());
  CHECK(plan.threads == 1);
  // --bind-to none: no pinning, but the cores are still shared by the ranks.
  variables["OMPI_MCA_hwloc_base_binding_policy"] = "none";
  plan = plan_placement(environment_of(variables), all, all, 0);
  CHECK(plan.cores.empty());
  CHECK(plan.threads == 2);
  // Slurm's own binding is the rank's share already.
  plan = plan_placement(
      environment_of(
          {{"PMIX_RANK", "1"}, {"SLURM_LOCALID", "1"}, {"SLURM_STEP_TASKS_PER_NODE", "2"}}),
      {2, 3}, all, 0);
  CHECK(plan.cores.empty());
  CHECK(plan.threads == 2);
}

TEST_CASE("placement: every launcher's word for the ranks of a node is understood") {
  struct Launcher {
    const char *rank, *local_rank, *local_size;
  };
  const Launcher kLaunchers[] = {
      {"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"},
      {"PMI_RANK", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"},  // MPICH, Intel MPI
      {"MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_SIZE"},
      {"PMI_RANK", "PMI_LOCAL_RANK", "PMI_LOCAL_SIZE"},  // Cray MPICH under Slurm
      {"PALS_RANKID", "PALS_LOCAL_RANKID", "PALS_LOCAL_SIZE"},
      {"PMIX_RANK", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"}};
  for (const auto& [rank, local_rank, local_size] : kLaunchers) {
    CAPTURE(local_rank);
    auto told = environment_of({{rank, "9"}, {local_rank, "1"}, {local_size, "4"}});
    CHECK(told.launched);
    CHECK(told.open_mpi == (std::string(rank) == "OMPI_COMM_WORLD_SIZE"));
    CHECK(told.local_rank == 1);
    CHECK(told.local_size == 4);
    // One that tells the rank alone, or less than it knows, has at least that many.
    CHECK(environment_of({{rank, "9"}, {local_rank, "2"}}).local_size == 3);
    CHECK(environment_of({{rank, "9"}, {local_rank, "2"}, {local_size, "0"}}).local_size == 3);
    CHECK(environment_of({{rank, "9"}}).local_size == 1);
    // Without a launcher they are left-overs.
    CHECK(environment_of({{local_rank, "2"}, {local_size, "4"}}).local_size == 1);
  }
  std::map<std::string, std::string> step = {
      {"SLURM_STEP_ID", "0"}, {"SLURM_STEP_NUM_TASKS", "2"}, {"SLURM_LOCALID", "1"}};
  CHECK(environment_of(step).launched);
  CHECK(environment_of(step).local_rank == 1);
  step["SLURM_STEP_NUM_TASKS"] = "1";
  CHECK_FALSE(environment_of(step).launched);
}

TEST_CASE("placement: whatever the user binds with is respected") {
  Cores all = {0, 1, 2, 3};
  CHECK_FALSE(environment_of(open_mpi(1, 2)).user_bound);
  for (const char* name : {"OMP_PLACES", "OMP_PROC_BIND", "GOMP_CPU_AFFINITY", "KMP_AFFINITY",
                           "OMPI_MCA_hwloc_base_binding_policy", "OMPI_MCA_hwloc_base_cpu_set",
                           "PRTE_MCA_hwloc_default_binding_policy", "SLURM_CPU_BIND_TYPE"}) {
    CAPTURE(name);
    auto variables = open_mpi(1, 2);
    variables[name] = "something";
    CHECK(environment_of(variables).user_bound);
    CHECK(plan_placement(environment_of(variables), {1}, all, 0).cores.empty());
    variables[name] = "";  // as good as not set
    CHECK_FALSE(environment_of(variables).user_bound);
    CHECK(plan_placement(environment_of(variables), {1}, all, 0).cores == Cores{2, 3});
  }
}

namespace {

// What `body` returns in a child process of this name.
template <class F>
int in_child(const char* name, F&& body) {
  pid_t child = fork();
  if (child == 0) {
    prctl(PR_SET_NAME, name);
    _exit(body());
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace

TEST_CASE("placement: the launcher is found behind wrapper scripts") {
  for (const char* launcher : {"mpirun", "orted", "slurmstepd"}) {
    int found = in_child(launcher, [] {
      pid_t mpirun = getpid();
      return in_child("wrap (me) up", [mpirun] {
        pid_t wrapper = getpid();
        return in_child("adagate", [mpirun, wrapper] {
          pid_t said = launcher_process();
          return said == mpirun ? 1 : said == wrapper ? 2 : 3;
        });
      });
    });
    CHECK(found == 1);
  }
  // No launcher above: the parent.
  CHECK(in_child("shell", [] { return launcher_process() == getppid() ? 1 : 2; }) == 1);
}

TEST_CASE("placement: a CPU quota bounds the threads of a node's ranks together") {
  Cores eight = {0, 1, 2, 3, 4, 5, 6, 7};
  auto alone = [&](double cpus) {
    return plan_placement(environment_of({}), eight, eight, 0, {cpus, "cpu.max"});
  };
  CHECK(describe_threads(alone(0)) == "8 per rank");
  CHECK(describe_threads(alone(1)) == "1 per rank (CPU quota of 1.0)");
  CHECK(describe_threads(alone(2.5)) == "3 per rank (CPU quota of 2.5)");
  CHECK(describe_threads(alone(0.1)) == "1 per rank (CPU quota of 0.1)");
  CHECK(describe_threads(alone(8)) == "8 per rank");
  CHECK(describe_threads(alone(64)) == "8 per rank");
  int threads[3], first_cores[3];
  for (int r = 0; r < 3; ++r) {
    auto plan = plan_placement(environment_of(open_mpi(r, 3)), {r}, eight, 0, {5, "cpu.max"});
    threads[r] = plan.threads;
    first_cores[r] = plan.cores.front();
    CHECK(plan.node_cpus == 5);
    CHECK_FALSE(plan.oversubscribed);
  }
  CHECK(threads[0] + threads[1] + threads[2] == 5);
  CHECK(threads[2] == 1);
  CHECK(first_cores[1] == 3);  // the cores are shared out as ever
  CHECK(first_cores[2] == 6);
  // Fewer CPUs than ranks: waiting ranks must give way.
  auto crowded = plan_placement(environment_of(open_mpi(1, 4)), {1}, eight, 0, {1.5, "cpu.max"});
  CHECK(crowded.threads == 1);
  CHECK(crowded.node_cpus == 2);
  CHECK(crowded.oversubscribed);
  // Another launcher has given each rank its cores; the quota is for all ranks of the node.
  auto slurm = environment_of({{"SLURM_STEP_ID", "0"},
                               {"SLURM_STEP_NUM_TASKS", "2"},
                               {"SLURM_PROCID", "1"},
                               {"SLURM_LOCALID", "1"},
                               {"SLURM_STEP_TASKS_PER_NODE", "2"}});
  CHECK(plan_placement(slurm, {4, 5, 6, 7}, eight, 0).threads == 4);
  CHECK(plan_placement(slurm, {4, 5, 6, 7}, eight, 0, {4, "cpu.max"}).threads == 2);
}

TEST_CASE("placement: more threads than CPUs are allowed, with a word about it") {
  auto ask = [](int requested, double quota) {
    return plan_placement(environment_of({}), {0, 1}, {0, 1}, requested, {quota, "/cpu.max"});
  };
  auto plan = ask(2, 1);
  CHECK(plan.threads == 2);
  CHECK(describe_threads(plan) == "2 per rank");
  CHECK(plan.complaint ==
        "2 threads per rank, but a CPU quota of 1.0 (/cpu.max) for 1 rank: more than 1 per rank "
        "wait for each other");
  CHECK(ask(3, 0).complaint ==
        "3 threads per rank, but 2 cores for 1 rank: more than 2 per rank wait for each other");
  CHECK(ask(2, 0).complaint.empty());
  CHECK(ask(1, 1).complaint.empty());
  CHECK(ask(0, 1).complaint.empty());
  auto variable = environment_of({{"OMP_NUM_THREADS", "2"}});
  plan = plan_placement(variable, {0, 1}, {0, 1}, 0, {1, "/cpu.max"});
  CHECK(plan.threads == 2);
  CHECK_FALSE(plan.complaint.empty());
  // Once for the ranks of a node.
  CHECK(plan_placement(environment_of(open_mpi(1, 2)), {1}, {0, 1}, 2).complaint.empty());
}

TEST_CASE("placement: threads must not be negative") {
  CHECK_THROWS_AS(configure_threads(-1), Error);
}
