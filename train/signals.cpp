#include "train/signals.h"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <time.h>
#include <unistd.h>

#include "core/base/error.h"
#include "core/base/signal_handler.h"
#include "core/base/standard_output.h"

namespace adagate {
namespace {

constexpr int kBySignal = 128;      // a shell's status of a command that a signal ended
constexpr int64_t kDoubledMs = 50;  // a wrapper passes on what the terminal has sent, too
std::atomic<int> g_signal{0};       // what handlers touch is free of locks
std::atomic<int64_t> g_came_at{0};  // milliseconds
std::atomic<const char*> g_notice{nullptr};
std::atomic<size_t> g_notice_size{0};

int64_t milliseconds_now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * int64_t{1000} + now.tv_nsec / 1'000'000;
}

void on_signal(int signal) {
  int64_t now = milliseconds_now();
  if (g_signal != 0) {
    if (signal == SIGINT && now - g_came_at > kDoubledMs) _exit(kBySignal + SIGINT);
    return;
  }
  g_came_at = now;
  g_signal = signal;
  if (signal != SIGINT || g_notice == nullptr) return;
  [[maybe_unused]] ssize_t written = write(STDERR_FILENO, g_notice, g_notice_size);
}

}  // namespace

void install_stop_signals(std::string_view notice) {
  g_notice = notice.data();
  g_notice_size = notice.size();
  handle_signal(SIGTERM, on_signal);
  handle_signal(SIGUSR1, on_signal);
  for (int signal : {SIGINT, SIGHUP})
    if (!is_ignored(signal)) handle_signal(signal, on_signal);
}

int stop_signal() {
  return g_signal;
}

bool stop_wanted() {
  return stop_signal() != 0 || output_failure() == EPIPE;
}

void clear_stop_signal() {
  g_signal = 0;
}

void check_not_stopped(std::string_view what) {
  if (int signal = stop_signal()) throw Error(std::string(what), kBySignal + signal);
}

}  // namespace adagate
