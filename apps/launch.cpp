#include "apps/launch.h"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fmt/format.h>
#include <signal.h>
#include <thread>
#include <time.h>
#include <unistd.h>

#include "core/base/signal_handler.h"
#include "parallel/mpi_session.h"
#include "parallel/mpi_version.h"
#include "parallel/placement.h"
#include "parallel/rank_names.h"

namespace adagate {
namespace {

// When SIGCONT came last, and whether SIGTERM came since this process is ending.
std::atomic<int64_t> g_noticed_at{-1000};
std::atomic<bool> g_terminated{false};

int64_t seconds_now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);  // may be called by signal handlers
  return now.tv_sec;
}

void wait_ms(int milliseconds) {
  std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
}

// Waits for a rank other than this one to end the job; returns when none has. The mpirun of Open
// MPI 4 sleeps for a second after SIGCONT and for another one after SIGTERM; a signal ends its
// sleep, and SIGCHLD, which tells it to look after its children, does so without other effects.
void wait_for_end_of_job(int code) {
  constexpr int kPatience = 1600;    // milliseconds; a busy mpirun takes a while
  constexpr int kUntilAsleep = 20;   // from its signal on
  constexpr int kBetweenCalls = 50;  // less than mpirun would sleep
  constexpr int64_t kRecent = 1;     // seconds; an older SIGCONT was another (a resumed job's)
  handle_signal(SIGTERM, [](int) { g_terminated = true; });
  pid_t launcher = std::getenv("OMPI_COMM_WORLD_SIZE") ? launcher_process() : 0;
  int64_t start = seconds_now();
  for (int ms = 0; ms < kPatience && !g_terminated; ms += 5) {
    if (ms % kBetweenCalls == kUntilAsleep && launcher > 1) kill(launcher, SIGCHLD);
    wait_ms(5);
  }
  if (!g_terminated && g_noticed_at < start - kRecent) return;
  wait_ms(kUntilAsleep);  // then the end of this process ends the sleep
  _exit(code);
}

}  // namespace

Launch launch_from_environment() {
  if (!started_by_launcher()) return {};  // also where ADAGATE_MPI=0 says so
  auto environment = read_launch_environment();
  return {environment.rank, environment.ranks};
}

void check_launch(MpiSession& session) {
  if (!session.uses_mpi()) return;
  const Communicator& world = *session.world();
  Launch launch = launch_from_environment();
  check(launch.rank == world.rank() && launch.ranks == world.size(),
        "MPI started rank {} of {}, but the launcher's environment tells of rank {} of {}: start "
        "adagate with the mpirun, mpiexec or srun of the MPI that it is linked with, {}, or set "
        "PMI_RANK and PMI_SIZE for each rank",
        world.rank(), world.size(), launch.rank, launch.ranks, mpi_version());
}

void notice_ending_ranks() {
  if (launch_from_environment().rank == 0) return;
  // mpirun's order on ending a job is SIGCONT at once, SIGTERM a second later, SIGKILL.
  handle_signal(SIGCONT, [](int) { g_noticed_at = seconds_now(); });
}

void end_with_error(const std::string& message, int exit_code) {
  Launch launch = launch_from_environment();
  int code = exit_code > 0 && exit_code < 256 ? exit_code : 1;
  std::fflush(stdout);
  report_failure(code, message);
  if (launch.rank > 0) wait_for_end_of_job(code);
  if (!claim_telling()) _exit(code);
  // A rank that speaks for itself alone may be the only one of its host with this error.
  std::string who =
      launch.rank > 0 ? fmt::format(" [rank {}, host {}]", launch.rank, host_name()) : "";
  std::fputs(fmt::format("adagate{}: error: {}\n", who, message).c_str(), stderr);
  std::fflush(stderr);
  _exit(code);
}

}  // namespace adagate
