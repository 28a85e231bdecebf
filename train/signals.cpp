#include "train/signals.h"

#include <csignal>

#include "core/base/signal_handler.h"

namespace adagate {
namespace {

volatile std::sig_atomic_t g_signal = 0;

void on_signal(int signal) {
  g_signal = signal;
}

}  // namespace

void install_stop_signals() {
  handle_signal(SIGTERM, on_signal);
  handle_signal(SIGUSR1, on_signal);
}

int stop_signal() {
  return g_signal;
}

void clear_stop_signal() {
  g_signal = 0;
}

}  // namespace adagate
