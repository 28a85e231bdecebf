#include "apps/launch.h"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fmt/format.h>
#include <optional>
#include <signal.h>
#include <thread>
#include <time.h>
#include <unistd.h>

#include "parallel/mpi_session.h"

namespace adagate {
namespace {

std::optional<int> number_in(const char* variable) {
  const char* text = std::getenv(variable);
  if (!text) return std::nullopt;
  char* end = nullptr;
  long value = std::strtol(text, &end, 10);
  if (end == text || *end != '\0' || value < 0 || value > 1'000'000) return std::nullopt;
  return static_cast<int>(value);
}

// When SIGCONT came last.
std::atomic<int64_t> g_noticed_at{-1000};

int64_t seconds_now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);  // may be called by signal handlers
  return now.tv_sec;
}

}  // namespace

Launch launch_from_environment() {
  // Rank and number of ranks by launcher: OpenMPI, MPICH's hydra, Slurm's srun.
  constexpr const char* kVariables[][2] = {{"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"},
                                           {"PMI_RANK", "PMI_SIZE"},
                                           {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS"}};
  for (auto [rank_name, ranks_name] : kVariables) {
    auto rank = number_in(rank_name), ranks = number_in(ranks_name);
    if (rank && ranks && *rank < *ranks) return {*rank, *ranks};
  }
  return {};
}

void notice_ending_ranks() {
  if (launch_from_environment().rank == 0) return;
  // mpirun's order on ending a job is SIGCONT at once, SIGTERM a second later, SIGKILL.
  struct sigaction action = {};
  action.sa_handler = [](int) { g_noticed_at = seconds_now(); };
  action.sa_flags = SA_RESTART;
  sigaction(SIGCONT, &action, nullptr);
}

void end_with_error(const std::string& message, int exit_code) {
  Launch launch = launch_from_environment();
  int code = exit_code > 0 && exit_code < 256 ? exit_code : 1;
  std::fflush(stdout);
  report_failure(code, message);
  if (launch.rank > 0) {
    constexpr int kTenthsOfPatience = 16;  // a busy mpirun needs a while to end the others
    constexpr int64_t kRecent = 1;         // seconds; an older sign was another (a resumed job's)
    int64_t start = seconds_now();
    for (int tenth = 0; tenth < kTenthsOfPatience; ++tenth) {
      if (g_noticed_at >= start - kRecent || failure_told()) _exit(code);
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  }
  if (!claim_telling()) _exit(code);
  std::string who = launch.rank > 0 ? fmt::format(" [rank {}]", launch.rank) : "";
  std::fputs(fmt::format("adagate{}: error: {}\n", who, message).c_str(), stderr);
  std::fflush(stderr);
  _exit(code);
}

}  // namespace adagate
