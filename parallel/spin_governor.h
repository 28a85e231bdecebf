// How long threads wait awake. libgomp lets a thread that waits for its team spin for some
// milliseconds before it sleeps: right on an idle machine, where waking takes longer than most
// waits, and wrong beside other busy programs, where it takes the cores from those it waits for.
// It spins a few microseconds instead as soon as it manages more threads than there are
// processors. The governor makes that so, with threads that sleep, while others want the cores.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

namespace adagate {

// Seconds that each living thread of this process has been ready to run and had to wait for a core,
// by thread id; empty where the system doesn't tell.
std::map<int, double> waited_for_cores();

// The largest share of `seconds` that one thread has waited between two calls of the above;
// negative if unknown.
double largest_wait(const std::map<int, double>& before, const std::map<int, double>& now,
                    double seconds);

// Whether waiting threads should spin briefly, from how much of the time is spent waiting for
// cores.
class SpinPolicy {
 public:
  // `share`: largest_wait() since the last call.
  // Returns true while spinning should be brief: from the start on, until a few calls in a row have
  // seen no contention, and again for a longer time once there was some.
  bool brief(double share);

 private:
  int calm_ = 0;         // calls in a row without contention
  int calm_needed_ = 4;  // before long spinning
};

// A team of OpenMP's that sleeps, so that libgomp counts its threads as managed.
class SleepingTeam {
 public:
  explicit SleepingTeam(int threads);
  ~SleepingTeam();  // the threads have ended
  SleepingTeam(const SleepingTeam&) = delete;
  SleepingTeam& operator=(const SleepingTeam&) = delete;

 private:
  void sleep();

  std::mutex mutex_;
  std::condition_variable changed_;
  int asleep_ = 0;
  bool ended_ = false;
  std::thread first_;
};

class SpinGovernor {
 public:
  // `threads`: of this process's team; `processors`: as libgomp found them when it was loaded.
  // `waited`: as waited_for_cores().
  SpinGovernor(int threads, int processors,
               std::function<std::map<int, double>()> waited = waited_for_cores,
               std::chrono::milliseconds interval = std::chrono::milliseconds(50));
  ~SpinGovernor();
  SpinGovernor(const SpinGovernor&) = delete;
  SpinGovernor& operator=(const SpinGovernor&) = delete;

  bool brief();

 private:
  void watch();

  int extra_threads_;
  std::function<std::map<int, double>()> waited_;
  std::chrono::milliseconds interval_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::unique_ptr<SleepingTeam> team_;
  bool ended_ = false;
  std::thread watcher_;
};

// Starts a governor that lives as long as the program, unless the team is one thread, the user has
// said how threads wait (OMP_WAIT_POLICY, GOMP_SPINCOUNT), or more than 64 processors are left
// over.
void govern_spinning(int threads, int processors);

}  // namespace adagate
