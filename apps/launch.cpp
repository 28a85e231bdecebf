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

// Waits for a rank other than this one to tell and end the job; returns when none has. The mpirun
// of Open MPI 4 sleeps for a second after SIGCONT and for another one after SIGTERM; a signal ends
// its sleep, and SIGCHLD, which tells it to look after its children, does so without other effects.
void wait_for_end_of_job(int code) {
  constexpr int kPatience = 1600;    // milliseconds; a busy mpirun takes a while
  constexpr int kUntilSignal = 200;  // from the moment that another rank has told
  constexpr int kUntilAsleep = 20;   // from its signal on
  constexpr int kBetweenCalls = 50;  // less than mpirun would sleep
  constexpr int64_t kRecent = 1;     // seconds; an older SIGCONT was another (a resumed job's)
  handle_signal(SIGTERM, [](int) { g_terminated = true; });
  pid_t launcher = std::getenv("OMPI_COMM_WORLD_SIZE") ? launcher_process() : 0;
  int64_t start = seconds_now();
  auto noticed = [&] { return g_noticed_at >= start - kRecent; };
  bool told = false;
  int patience = kPatience;
  for (int ms = 0; ms < patience && !g_terminated && !(told && noticed()); ms += 5) {
    if (!told && is_told()) {
      told = true;
      patience = ms + kUntilSignal;
    }
    if (ms % kBetweenCalls == kUntilAsleep && launcher > 1) kill(launcher, SIGCHLD);
    wait_ms(5);
  }
  if (!told && !g_terminated && !noticed()) return;
  wait_ms(kUntilAsleep);  // then the end of this process ends the sleep
  _exit(code);
}

std::atomic<bool> g_meets_ranks{true};

void print_error(const std::string& message) {
  Launch launch = launch_from_environment();
  // A rank that speaks for itself alone may be the only one of its host with this error.
  std::string who =
      launch.rank > 0 ? fmt::format(" [rank {}, host {}]", launch.rank, host_name()) : "";
  std::fputs(fmt::format("adagate{}: error: {}\n", who, message).c_str(), stderr);
  std::fflush(stderr);
}

// Over several hosts a launcher's signals come too late to keep ranks silent, and before MPI runs
// the ranks know nothing of each other: they then start it to agree on who tells. False: tell.
bool another_tells(const std::string& message, int code) {
  constexpr double kPatience = 10;  // seconds; all ranks that fail alike are there in one
  auto environment = read_launch_environment();
  bool several_hosts = environment.launched && environment.local_size < environment.ranks;
  if (!several_hosts || !g_meets_ranks || start_was_tried()) return false;
  try {
    return !tell_failure_at_start({kPatience, end_stuck_start}, code, message);
  } catch (const Error&) {
    return is_told();
  }
}

}  // namespace

void set_meets_ranks(bool meets) {
  g_meets_ranks = meets;
}

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
  bool met = !start_was_tried();
  if (another_tells(message, code)) _exit(code);
  met = met && start_was_tried();
  report_failure(code, message);
  if (launch.rank > 0 && !met) wait_for_end_of_job(code);
  if (is_told() || !claim_telling()) _exit(code);
  print_error(message);
  note_told();
  _exit(code);
}

void end_stuck_start(const std::string& message) {
  constexpr int kPatience = 8000;  // milliseconds
  if (launch_from_environment().rank > 0) wait_ms(kPatience);
  print_error(message);
  _exit(1);
}

}  // namespace adagate
