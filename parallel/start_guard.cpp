#include "parallel/start_guard.h"

#include <chrono>
#include <fmt/format.h>
#include <signal.h>

#include "parallel/rank_names.h"

namespace adagate {

StartGuard::StartGuard(double seconds, GiveUp give_up)
    : seconds_(seconds), give_up_(std::move(give_up)) {
  if (seconds_ <= 0) return;
  // Signals are for the main thread, see core/base/signal_handler.h.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { watch(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

StartGuard::~StartGuard() {
  {
    std::lock_guard lock(mutex_);
    over_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void StartGuard::begin(const char* stage) {
  {
    std::lock_guard lock(mutex_);
    stage_ = stage;
    ++stages_;
  }
  changed_.notify_all();
}

void StartGuard::watch() {
  std::unique_lock lock(mutex_);
  while (!over_) {
    uint64_t seen = stages_;
    auto news = [&] { return over_ || stages_ != seen; };
    if (!stage_) {
      changed_.wait(lock, news);
    } else if (!changed_.wait_for(lock, std::chrono::duration<double>(seconds_), news)) {
      give_up_(fmt::format(
          "MPI does not start: {} has not returned within {:g} s on host {}. Another host may be "
          "down or out of reach; name the network interface that connects the hosts (ip -br "
          "address lists them): mpirun --mca btl_tcp_if_include IFACE --mca oob_tcp_if_include "
          "IFACE ... Where the start takes longer raise parallel.start_timeout (--start-timeout)",
          stage_, seconds_, host_name()));
      return;
    }
  }
}

}  // namespace adagate
