// How long waiting threads spin, beside programs that want the cores and without them.
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <string>
#include <thread>

#include "parallel/spin_governor.h"
#include "tests/support/catch.h"

using namespace adagate;
using namespace std::chrono_literals;

namespace {

#ifdef _OPENMP  // the builds of the sanitizers of threads and of the guards have no teams
// Seconds on cores that a team of two takes for waiting: the first of it works apart for 2 ms after
// each of 25 regions.
double cost_of_waiting() {
  timespec before{}, after{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
  for (int i = 0; i < 25; ++i) {
    static std::atomic<int> there;
#pragma omp parallel num_threads(2)
    ++there;
    std::this_thread::sleep_for(2ms);
  }
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
  return static_cast<double>(after.tv_sec - before.tv_sec) +
         static_cast<double>(after.tv_nsec - before.tv_nsec) * 1e-9;
}
#endif

bool becomes(SpinGovernor& governor, bool brief) {
  for (int i = 0; i < 2000 && governor.brief() != brief; ++i) std::this_thread::sleep_for(5ms);
  return governor.brief() == brief;
}

}  // namespace

TEST_CASE("spin governor: contention makes waits short, calm makes them long") {
  SpinPolicy policy;
  for (int i = 0; i < 3; ++i) CHECK(policy.brief(0));
  CHECK_FALSE(policy.brief(0.19));
  CHECK_FALSE(policy.brief(0));
  CHECK(policy.brief(0.21));
  for (int i = 0; i < 19; ++i) CHECK(policy.brief(0.01));
  CHECK_FALSE(policy.brief(0));
}

TEST_CASE("spin governor: where the system tells nothing, waits are short") {
  SpinPolicy policy;
  for (int i = 0; i < 100; ++i) CHECK(policy.brief(-1));
}

#ifdef _OPENMP
// Tests run with OMP_WAIT_POLICY, which libgomp reads once, while it is loaded: so this one is run
// in a process of its own, by the next.
TEST_CASE("how long a team waits awake", "[.spinning]") {
  double awake = cost_of_waiting();
  REQUIRE(awake > 0.01);
  {
    SleepingTeam team(static_cast<int>(std::thread::hardware_concurrency()) + 1);
    CHECK(cost_of_waiting() < awake / 4);
  }
  CHECK(cost_of_waiting() > awake / 8);
}

TEST_CASE("spin governor: a sleeping team makes the others' waits short") {
  if (std::thread::hardware_concurrency() < 2) {
    WARN("one processor: all waits are short");
    return;
  }
  std::string itself = std::filesystem::read_symlink("/proc/self/exe");
  std::string command =
      "env -u OMP_WAIT_POLICY -u GOMP_SPINCOUNT '" + itself + "' '[.spinning]' >&2";
  CHECK(std::system(command.c_str()) == 0);
}
#endif

TEST_CASE("spin governor: follows what its threads wait") {
  std::atomic<bool> contended = true;
  double waited = 0;
  SpinGovernor governor(
      2, 2,
      [&] {
        if (contended) waited += 1;
        return std::map<int, double>{{1, 0.0}, {2, waited}};
      },
      1ms);
  CHECK(governor.brief());
  contended = false;
  CHECK(becomes(governor, false));
  contended = true;
  CHECK(becomes(governor, true));
}

TEST_CASE("spin governor: the system tells what threads wait for cores") {
  auto before = waited_for_cores();
  if (before.empty()) return;  // a kernel without it
  CHECK(largest_wait(before, waited_for_cores(), 1) >= 0);
  CHECK(largest_wait({{1, 0.5}, {2, 1.0}}, {{1, 0.6}, {2, 1.5}, {3, 9.0}}, 2) == 0.25);
  CHECK(largest_wait({}, {{1, 1.0}}, 1) < 0);
}
