#include "parallel/rank_context.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstring>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/base/error.h"
#include "parallel/watchdog.h"

namespace adagate {
namespace {

// A wait first spins (a few microseconds: two ranks in step), then yields the core, then sleeps.
constexpr int kSpins = 2000;
constexpr int kYields = 40;
constexpr int64_t kSleepNs = 5'000'000;       // bound of a sleep: failures are seen this soon
constexpr int64_t kPendingSleepNs = 200'000;  // with asynchronous work that may become due
constexpr int64_t kProcessCheckNs = 50'000'000;

std::atomic<double> g_timeout{600.0};
std::atomic<RankStatus*> g_process_status{nullptr};
thread_local RankStatus* t_thread_status = nullptr;

int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

inline void pause_core() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

uint32_t* address_of(std::atomic<uint32_t>& word) {
  static_assert(sizeof(std::atomic<uint32_t>) == 4 && std::atomic<uint32_t>::is_always_lock_free);
  return reinterpret_cast<uint32_t*>(&word);
}

// Sleeps while `word` still holds `seen`, for `ns` at most.
void futex_sleep(std::atomic<uint32_t>& word, uint32_t seen, int64_t ns) {
  timespec limit{ns / 1'000'000'000, ns % 1'000'000'000};
  syscall(SYS_futex, address_of(word), FUTEX_WAIT, seen, &limit, nullptr, 0);
}

}  // namespace

void wake_sleepers(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, address_of(word), FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

void set_collective_timeout(double seconds) {
  check(seconds > 0, "the collective timeout must be positive, got {} s", seconds);
  g_timeout.store(seconds);
}
double collective_timeout() {
  return g_timeout.load();
}

void bind_progress_note(RankStatus* status, bool whole_process) {
  if (whole_process)
    g_process_status.store(status);
  else
    t_thread_status = status;
}

void set_progress_note(std::string_view note) {
  RankStatus* status = t_thread_status ? t_thread_status : g_process_status.load();
  if (status) status->set_note(note);
}

void RankStatus::set_note(std::string_view text) {
  char bytes[kNoteWords * 8] = {};
  std::memcpy(bytes, text.data(), std::min(text.size(), sizeof(bytes) - 1));
  for (size_t i = 0; i < kNoteWords; ++i) {
    uint64_t word;
    std::memcpy(&word, bytes + i * 8, 8);
    note[i].store(word, std::memory_order_relaxed);
  }
}

std::string RankStatus::read_note() const {
  char bytes[kNoteWords * 8 + 1] = {};
  for (size_t i = 0; i < kNoteWords; ++i) {
    uint64_t word = note[i].load(std::memory_order_relaxed);
    std::memcpy(bytes + i * 8, &word, 8);
  }
  return bytes;
}

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

RankContext::RankContext(FailureRecord* failure, RankStatus* status, std::vector<int> world_ranks,
                         int self, std::shared_ptr<void> keep_alive)
    : failure_(failure),
      status_(status),
      world_ranks_(std::move(world_ranks)),
      self_(self),
      keep_alive_(std::move(keep_alive)) {}

RankContext::~RankContext() {
  RankStatus* own = &own_status();
  g_process_status.compare_exchange_strong(own, nullptr);
  for (int fd : process_fds_)
    if (fd >= 0) close(fd);
}

void RankContext::watch_processes(const std::vector<int64_t>& process_ids) {
  process_ids_ = process_ids;
  for (int64_t id : process_ids_) {
    int fd = -1;
#ifdef SYS_pidfd_open
    // Tells a zombie from a living process, and survives the reuse of its number.
    fd = static_cast<int>(syscall(SYS_pidfd_open, static_cast<pid_t>(id), 0));
#endif
    process_fds_.push_back(fd);
  }
}

std::string RankContext::describe(int peer) const {
  std::string note = status_[peer].read_note();
  return note.empty() ? fmt::format("rank {}", world_rank(peer))
                      : fmt::format("rank {} (last at: {})", world_rank(peer), note);
}

void RankContext::check_processes(const char* what) {
  for (int peer = 0; peer < static_cast<int>(process_ids_.size()); ++peer) {
    auto p = static_cast<size_t>(peer);
    if (peer == self_ || status_[peer].left.load()) continue;
    bool ended;
    if (process_fds_[p] >= 0) {
      pollfd query{process_fds_[p], POLLIN, 0};
      ended = poll(&query, 1, 0) > 0;
    } else {
      ended = kill(static_cast<pid_t>(process_ids_[p]), 0) != 0 && errno == ESRCH;
    }
    if (!ended || failure_seen()) continue;
    fail("{} has ended without a word (killed, or out of memory?) while rank {} was in {}",
         describe(peer), own_world_rank(), what);
  }
}

void RankContext::check_health(int peer, const char* what) {
  int failed = failure_->rank.load(std::memory_order_acquire);
  if (failed >= 0)
    throw Error(fmt::format("rank {} failed: {}", failed, failure_->message),
                failure_->exit_code.load());
  check_processes(what);
  if (peer >= 0 && status_[peer].left.load(std::memory_order_acquire))
    fail(
        "{} has finished and left, but rank {} waits for it in {}: the ranks do not make the same "
        "calls",
        describe(peer), own_world_rank(), what);
}

void RankContext::fail_unreadable(int peer, const char* what, int64_t bytes, int error) {
  constexpr int64_t kPatienceNs = 1'000'000'000;
  try {
    for (int64_t start = now_ns(); now_ns() - start < kPatienceNs;) {
      check_health(peer, what);
      timespec nap{0, 5'000'000};
      nanosleep(&nap, nullptr);
    }
    fail("rank {} cannot read {} bytes of {} in {}: {}", own_world_rank(), bytes, describe(peer),
         what, std::strerror(error));
  } catch (const Error& e) {
    retreat(e.what());
    throw;
  }
}

void RankContext::fail_timeout(int peer, const char* what, double seconds) {
  fail("rank {} has waited {:.0f} s for {} in {}: it hangs, or makes other calls", own_world_rank(),
       seconds, describe(peer), what);
}

void RankContext::retreat(std::string_view message) {
  failure_->claim(own_world_rank(), 1, message);
  // Other processes map shared memory themselves; only threads could touch memory that is gone.
  if (!process_ids_.empty()) return;
  for (int peer = 0; peer < size(); ++peer)
    while (peer != self_ && status_[peer].busy.load() != 0) sched_yield();
}

BusyScope::BusyScope(RankContext& context, const char* what) : context_(context) {
  context_.own_status().busy.store(1);
  if (context_.failure().rank.load() < 0) return;
  context_.own_status().busy.store(0);
  try {
    context_.check_health(-1, what);
  } catch (const Error& e) {
    context_.retreat(e.what());
    throw;
  }
}

void RankContext::add_progress(Progress* work) {
  if (std::find(pending_.begin(), pending_.end(), work) == pending_.end()) pending_.push_back(work);
}
void RankContext::remove_progress(Progress* work) {
  std::erase(pending_, work);
}

void RankContext::progress() {
  // Work that finishes removes itself from the list.
  for (size_t i = 0; i < pending_.size();) {
    Progress* work = pending_[i];
    work->progress();
    if (i < pending_.size() && pending_[i] == work) ++i;
  }
}

void RankContext::wait(Signal& signal, uint32_t target, int peer, const char* what) {
  // Ranks in step never wait long enough to notice a failure elsewhere: look at every call.
  bool failed = failure_seen();
  if (!failed && signal.reached(target)) return;
  if (spin_ && !failed) {
    for (int i = 0; i < kSpins; ++i) {
      pause_core();
      if (signal.reached(target)) return;
    }
  }
  for (int i = 0; i < kYields && !failed; ++i) {
    progress();
    sched_yield();
    if (signal.reached(target)) return;
  }
  try {
    wait_slowly(signal, target, peer, what);
  } catch (const Error& e) {
    retreat(e.what());
    throw;
  }
}

void RankContext::wait_slowly(Signal& signal, uint32_t target, int peer, const char* what) {
  int64_t start = now_ns(), checked = 0;
  while (true) {
    progress();
    int64_t now = now_ns();
    if (now - checked > kProcessCheckNs) {
      checked = now;
      // Having left or ended after the signal is no fault: look at the signal again before blaming.
      try {
        check_health(peer, what);
      } catch (const Error&) {
        if (!failure_seen() && signal.reached(target)) return;
        throw;
      }
      double waited = static_cast<double>(now - start) * 1e-9;
      if (waited > collective_timeout()) fail_timeout(peer, what, waited);
    } else if (failure_seen()) {
      checked = 0;
    }
    signal.sleepers.fetch_add(1, std::memory_order_seq_cst);
    uint32_t seen = signal.value.load(std::memory_order_seq_cst);
    if (static_cast<int32_t>(seen - target) < 0)
      futex_sleep(signal.value, seen, pending_.empty() ? kSleepNs : kPendingSleepNs);
    signal.sleepers.fetch_sub(1, std::memory_order_seq_cst);
    if (signal.reached(target)) return;
  }
}

}  // namespace adagate
