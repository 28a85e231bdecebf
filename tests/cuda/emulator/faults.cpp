#include "tests/cuda/emulator/faults.h"

#include <array>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <memory>
#include <unistd.h>

#include "tests/cuda/emulator/device.h"
#include "tests/cuda/emulator/engine.h"
#include "tests/cuda/emulator/sanitizers.h"

namespace adagate::emulator {
namespace {

// "kernel K, block (0,0,0), thread (0,0,0)", or "the host". Also for the handler of signals: no
// allocation.
const char* where(std::array<char, 512>& text) {
  const ThreadContext* at = running_thread;
  if (at) {
    std::snprintf(text.data(), text.size(), "kernel %s, block (%u,%u,%u), thread (%u,%u,%u)",
                  running_kernel, at->block.x, at->block.y, at->block.z, at->thread.x, at->thread.y,
                  at->thread.z);
  } else {
    std::snprintf(text.data(), text.size(), "%s", running_kernel ? running_kernel : "the host");
  }
  return text.data();
}

void say(const char* text) {
  [[maybe_unused]] auto written = write(STDERR_FILENO, text, std::strlen(text));
}

void say_host_access(const Device& device) {
  say("emulator: the host touched memory of device ");
  const char digit[2] = {static_cast<char>('0' + device.index()), 0};
  say(digit);
  say("; launched last: ");
  say(device.launched);
  say(", running: ");
  say(device.running);
  say("\n");
}

void say_bad_access(int number, const siginfo_t* info) {
  std::array<char, 512> text;
  say("emulator: ");
  say(where(text));
  if (stack_overflows_at(info->si_addr)) {
    say(": its local variables need more stack than there is\n");
  } else if (number == SIGILL || number == SIGBUS || info->si_code == SI_KERNEL) {
    say(": an access that is not aligned to its type, or an address that cannot be\n");
  } else {
    std::snprintf(text.data(), text.size(),
                  ": it touched %p, which is in no allocation of its device\n", info->si_addr);
    say(text.data());
  }
}

void on_fault(int number, siginfo_t* info, void*) {
  if (running_thread) {
    say_bad_access(number, info);
    _exit(kEmulatorExit);
  }
  if (const Device* device = Device::holding(info->si_addr)) {
    say_host_access(*device);
    _exit(kEmulatorExit);
  }
  std::signal(number, SIG_DFL);  // somebody else's fault
}

// A stack that has overflowed has no room for the handler: it gets one of its own per OS thread.
class HandlerStack {
 public:
  HandlerStack() : memory_(new char[kBytes]) {
    stack_t stack{};
    stack.ss_sp = memory_.get();
    stack.ss_size = kBytes;
    sigaltstack(&stack, nullptr);
  }
  ~HandlerStack() {
    stack_t none{};
    none.ss_flags = SS_DISABLE;
    sigaltstack(&none, nullptr);
  }

 private:
  static constexpr size_t kBytes = 64 * 1024;
  std::unique_ptr<char[]> memory_;
};

}  // namespace

void stop(const std::string& message) {
  std::array<char, 512> text;
  std::string line = "emulator: ";
  if (running_kernel) line += std::string(where(text)) + ": ";
  line += message + "\n";
  std::fflush(stdout);
  say(line.c_str());
  _exit(kEmulatorExit);
}

void watch_for_faults() {
  if (kSanitized) return;  // they print more
  thread_local HandlerStack stack;
  static_cast<void>(stack);
  struct sigaction action {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
  for (int number : {SIGSEGV, SIGBUS, SIGILL}) sigaction(number, &action, nullptr);
}

}  // namespace adagate::emulator
