// A bound on MPI calls that have none of their own, while MPI starts.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace adagate {

class StartGuard {
 public:
  // When a stage of the start takes longer than `seconds` (0: no bound), calls give_up(message),
  // on a thread of its own since the one that starts MPI is stuck. give_up must end the process.
  using GiveUp = std::function<void(const std::string& message)>;
  StartGuard(double seconds, GiveUp give_up);
  ~StartGuard();  // the start is over
  StartGuard(const StartGuard&) = delete;
  StartGuard& operator=(const StartGuard&) = delete;

  // From now on the clock runs for this stage ("MPI_Init").
  void begin(const char* stage);
  // What comes next has a bound of its own.
  void pause() { begin(nullptr); }

 private:
  void watch();

  double seconds_;
  GiveUp give_up_;
  std::mutex mutex_;
  std::condition_variable changed_;
  const char* stage_ = nullptr;
  uint64_t stages_ = 0;
  bool over_ = false;
  std::thread thread_;
};

}  // namespace adagate
