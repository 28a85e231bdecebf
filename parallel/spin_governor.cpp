#include "parallel/spin_governor.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <string>

namespace adagate {

std::map<int, double> waited_for_cores() {
  namespace fs = std::filesystem;
  std::map<int, double> waited;
  std::error_code error;
  fs::directory_iterator tasks("/proc/self/task", error), end;
  for (; !error && tasks != end; tasks.increment(error)) {
    // Nanoseconds on a core, nanoseconds ready but waiting for one, time slices.
    std::ifstream file(fmt::format("{}/schedstat", tasks->path().string()));
    double on_core = 0, waiting = 0;
    if (!(file >> on_core >> waiting)) continue;  // the thread has ended
    waited[std::atoi(tasks->path().filename().c_str())] = waiting * 1e-9;
  }
  return waited;
}

double largest_wait(const std::map<int, double>& before, const std::map<int, double>& now,
                    double seconds) {
  double largest = -1;
  for (const auto& [thread, waited] : now) {
    auto earlier = before.find(thread);
    if (earlier != before.end()) largest = std::max(largest, (waited - earlier->second) / seconds);
  }
  return largest;
}

bool SpinPolicy::brief(double share) {
  // Threads that sleep and wake all the time wait up to a tenth of it on an idle machine; beside
  // one busy program a thread waits for about half of it.
  constexpr double kContention = 0.2;
  constexpr int kCalmAfterContention = 20;
  if (share < 0 || share > kContention) {
    calm_ = 0;
    if (share > kContention) calm_needed_ = kCalmAfterContention;
    return true;
  }
  calm_ = std::min(calm_ + 1, calm_needed_);
  return calm_ < calm_needed_;
}

SleepingTeam::SleepingTeam(int threads) {
  first_ = std::thread([this, threads] {
#pragma omp parallel num_threads(threads)
    sleep();
  });
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return asleep_ > 0; });
}

SleepingTeam::~SleepingTeam() {
  {
    std::lock_guard lock(mutex_);
    ended_ = true;
  }
  changed_.notify_all();
  first_.join();
}

void SleepingTeam::sleep() {
  std::unique_lock lock(mutex_);
  ++asleep_;
  changed_.notify_all();
  changed_.wait(lock, [&] { return ended_; });
}

SpinGovernor::SpinGovernor(int threads, int processors,
                           std::function<std::map<int, double>()> waited,
                           std::chrono::milliseconds interval)
    // One more than the processors together with the team; the first of a team isn't counted.
    : extra_threads_(std::max(2, processors - threads + 2)),
      waited_(std::move(waited)),
      interval_(interval),
      team_(std::make_unique<SleepingTeam>(extra_threads_)),
      watcher_([this] { watch(); }) {}

SpinGovernor::~SpinGovernor() {
  {
    std::lock_guard lock(mutex_);
    ended_ = true;
  }
  changed_.notify_all();
  watcher_.join();
}

bool SpinGovernor::brief() {
  std::lock_guard lock(mutex_);
  return team_ != nullptr;
}

void SpinGovernor::watch() {
  using Clock = std::chrono::steady_clock;
  SpinPolicy policy;
  auto before = waited_();
  auto then = Clock::now();
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, interval_, [&] { return ended_; })) {
    auto waited = waited_();
    auto now = Clock::now();
    bool brief = policy.brief(
        largest_wait(before, waited, std::chrono::duration<double>(now - then).count()));
    before = std::move(waited);
    then = now;
    if (brief == (team_ != nullptr)) continue;
    if (brief)
      team_ = std::make_unique<SleepingTeam>(extra_threads_);
    else
      team_.reset();
  }
}

void govern_spinning(int threads, int processors) {
#ifdef _OPENMP
  // Of a team on a small part of a large machine (a container's quota) libgomp would have to manage
  // threads by the hundred.
  constexpr int kMostExtra = 64;
  if (threads < 2 || std::getenv("OMP_WAIT_POLICY") || std::getenv("GOMP_SPINCOUNT")) return;
  if (processors - threads > kMostExtra) return;
  static SpinGovernor governor(threads, processors);
#else
  (void)threads, (void)processors;
#endif
}

}  // namespace adagate
