#include "core/base/heartbeat.h"

#include <atomic>

namespace adagate {
namespace {

std::atomic<void (*)()> g_hook{nullptr};

}  // namespace

void beat() {
  if (auto hook = g_hook.load(std::memory_order_acquire)) hook();
}

void set_heartbeat(void (*hook)()) {
  g_hook.store(hook, std::memory_order_release);
}

}  // namespace adagate
