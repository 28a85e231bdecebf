#include "core/base/signal_handler.h"

#include <signal.h>

namespace adagate {
namespace {

constexpr size_t kStackBytes = 128 << 10;  // the registers of AVX-512 alone take 3 KiB

void use_own_stack() {
  alignas(64) static char memory[kStackBytes];
  stack_t stack = {};
  stack.ss_sp = memory;
  stack.ss_size = kStackBytes;
  sigaltstack(&stack, nullptr);
}

}  // namespace

void handle_signal(int signal, void (*handler)(int)) {
  use_own_stack();
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART | SA_ONSTACK;
  sigaction(signal, &action, nullptr);
}

bool is_ignored(int signal) {
  struct sigaction action = {};
  return sigaction(signal, nullptr, &action) == 0 && action.sa_handler == SIG_IGN;
}

}  // namespace adagate
