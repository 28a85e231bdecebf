#include "parallel/rank_status.h"

#include <algorithm>
#include <cstring>

#include "core/base/error.h"
#include "core/base/heartbeat.h"
#include "parallel/node_link.h"
#include "parallel/watchdog.h"

namespace adagate {
namespace {

constexpr double kDefaultTimeout = 600.0;

std::atomic<double> g_timeout{kDefaultTimeout};
std::atomic<RankStatus*> g_process_status{nullptr};
thread_local RankStatus* t_thread_status = nullptr;

RankStatus* bound_status() {
  return t_thread_status ? t_thread_status : g_process_status.load();
}

void beat_bound_status() {
  if (RankStatus* status = bound_status()) status->beat();
  NodeLink::serve_this_thread();
}

}  // namespace

void set_collective_timeout(double seconds) {
  check(seconds >= 0, "the collective timeout must not be negative, got {} s", seconds);
  g_timeout.store(seconds);
}
double collective_timeout() {
  return g_timeout.load();
}

void bind_status(RankStatus* status, bool whole_process) {
  set_heartbeat(beat_bound_status);
  if (whole_process)
    g_process_status.store(status);
  else
    t_thread_status = status;
}

void unbind_status(RankStatus* status) {
  g_process_status.compare_exchange_strong(status, nullptr);
}

void set_progress_note(std::string_view note) {
  RankStatus* status = bound_status();
  if (!status) return;
  status->note.set(note);
  beat_bound_status();
}

template <size_t Words>
void SharedText<Words>::set(std::string_view text) {
  char bytes[Words * 8] = {};
  std::memcpy(bytes, text.data(), std::min(text.size(), sizeof(bytes) - 1));
  for (size_t i = 0; i < Words; ++i) {
    uint64_t word;
    std::memcpy(&word, bytes + i * 8, 8);
    words_[i].store(word, std::memory_order_relaxed);
  }
}

template <size_t Words>
std::string SharedText<Words>::read() const {
  char bytes[Words * 8 + 1] = {};
  for (size_t i = 0; i < Words; ++i) {
    uint64_t word = words_[i].load(std::memory_order_relaxed);
    std::memcpy(bytes + i * 8, &word, 8);
  }
  return bytes;
}

template class SharedText<3>;
template class SharedText<15>;

bool FailureRecord::claim(int failed_rank, int code, std::string_view text) {
  uint32_t free = 0;
  if (!claimed.compare_exchange_strong(free, 1)) {
    bool own = rank.load() == failed_rank;
    if (own) exit_code.store(code);
    return own;
  }
  std::memcpy(message, text.data(), std::min(text.size(), sizeof(message) - 1));
  exit_code.store(code);
  rank.store(failed_rank);
  return true;
}

}  // namespace adagate
