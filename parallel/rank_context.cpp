#include "parallel/rank_context.h"

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <fcntl.h>
#include <fmt/ranges.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <set>
#include <signal.h>
#include <string_view>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/base/error.h"
#include "parallel/clock.h"
#include "parallel/rank_names.h"
#include "parallel/watchdog.h"

namespace adagate {
namespace {

// A wait first spins (a few microseconds: two ranks in step), then yields the core, then sleeps.
constexpr int kSpins = 2000;
constexpr int kYields = 40;
constexpr int64_t kSleepNs = 5'000'000;       // bound of a sleep: failures are seen this soon
constexpr int64_t kPendingSleepNs = 200'000;  // with asynchronous work that may become due
constexpr int64_t kProcessCheckNs = 50'000'000;

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

RankContext::RankContext(FailureRecord* failure, RankStatus* status, int world_size,
                         std::vector<int> world_ranks, int self, std::shared_ptr<void> keep_alive)
    : failure_(failure),
      status_(status),
      world_size_(world_size),
      world_ranks_(std::move(world_ranks)),
      self_(self),
      keep_alive_(std::move(keep_alive)) {}

RankContext::~RankContext() {
  unbind_status(&own_status());
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

std::string RankContext::name_of(int world_rank) const {
  return hosts_.empty() ? fmt::format("rank {}", world_rank) : RankNames(hosts_).of(world_rank);
}

std::string RankContext::describe(int world_rank) const {
  const RankStatus& status = status_[world_rank];
  std::vector<std::string> details;
  if (!hosts_.empty()) details.push_back("host " + hosts_[static_cast<size_t>(world_rank)]);
  if (auto note = status.note.read(); !note.empty()) details.push_back("last at: " + note);
  if (auto call = status.waits_in.read(); !call.empty()) details.push_back("waits in " + call);
  std::string name = fmt::format("rank {}", world_rank);
  return details.empty() ? name : fmt::format("{} ({})", name, fmt::join(details, "; "));
}

void RankContext::check_processes(const char* what) {
  for (int peer = 0; peer < static_cast<int>(process_ids_.size()); ++peer) {
    auto p = static_cast<size_t>(peer);
    if (peer == self_ || status_of(peer).left.load()) continue;
    bool ended;
    if (process_fds_[p] >= 0) {
      pollfd query{process_fds_[p], POLLIN, 0};
      ended = poll(&query, 1, 0) > 0;
    } else {
      ended = kill(static_cast<pid_t>(process_ids_[p]), 0) != 0 && errno == ESRCH;
    }
    if (!ended || failure_seen()) continue;
    fail("{} has ended without a word (killed, or out of memory?) while rank {} was in {}",
         describe(world_rank(peer)), own_world_rank(), what);
  }
}

void RankContext::check_health(int peer, const char* what) {
  if (link_) link_->progress();
  int failed = failure_->rank.load(std::memory_order_acquire);
  if (failed >= 0)
    throw Error(fmt::format("{} failed: {}", name_of(failed), failure_->message),
                failure_->exit_code.load());
  check_processes(what);
  if (peer >= 0 && status_of(peer).left.load(std::memory_order_acquire))
    fail(
        "{} has finished and left, but rank {} waits for it in {}: the ranks do not make the same "
        "calls",
        describe(world_rank(peer)), own_world_rank(), what);
}

void RankContext::fail_unreadable(int peer, const char* what, int64_t bytes, int error) {
  constexpr int64_t kPatienceNs = 1'000'000'000;
  try {
    for (int64_t start = now_ns(); now_ns() - start < kPatienceNs;) {
      check_health(peer, what);
      timespec nap{0, 5'000'000};
      nanosleep(&nap, nullptr);
    }
    fail("rank {} cannot read {} bytes of {} in {}: {}", own_world_rank(), bytes,
         describe(world_rank(peer)), what, std::strerror(error));
  } catch (const Error& e) {
    retreat(e.what());
    throw;
  }
}

std::vector<int> RankContext::suspects(int peer) const {
  std::vector<int> working, waiting;
  for (int r = 0; r < world_size_; ++r) {
    if (r == own_world_rank() || status_[r].left.load()) continue;
    (status_[r].waits_in.read().empty() ? working : waiting).push_back(r);
  }
  if (!working.empty()) return working;
  if (peer >= 0) return {world_rank(peer)};
  return waiting;
}

// Ranks of one node agree through memory on which of them speaks; the word of another node takes a
// moment to come. So nodes whose ranks wait alike come one after the other.
double RankContext::turn() const {
  if (hosts_.empty()) return 0;
  constexpr double kUntilHeard = 0.7;
  constexpr size_t kMostTurns = 3;
  auto host = [&](int r) { return std::string_view(hosts_[static_cast<size_t>(r)]); };
  std::set<std::string_view> earlier;
  for (int r = 0; r < own_world_rank(); ++r) {
    bool waits = !status_[r].left.load() && !status_[r].waits_in.read().empty();
    if (waits && host(r) != host(own_world_rank())) earlier.insert(host(r));
  }
  return kUntilHeard * static_cast<double>(std::min(earlier.size(), kMostTurns));
}

void RankContext::check_standstill(Standstill& still, int peer, const char* what) {
  uint64_t beats = 0;
  for (int r = 0; r < world_size_; ++r) beats += status_[r].beats.load(std::memory_order_relaxed);
  int64_t now = now_ns();
  if (beats != still.beats) {
    still = {beats, now};
    return;
  }
  double seconds = static_cast<double>(now - still.since) * 1e-9, bound = collective_timeout();
  if (bound == 0 || seconds <= bound || seconds <= bound + turn()) return;
  constexpr size_t kMostNamed = 4;
  std::vector<std::string> names;
  auto ranks = suspects(peer);
  for (int r : ranks)
    if (names.size() < kMostNamed) names.push_back(describe(r));
  if (ranks.size() > kMostNamed) names.push_back(fmt::format("{} more", ranks.size() - kMostNamed));
  fail("{} has waited {:.0f} s for {} in {}: it hangs, or makes other calls",
       name_of(own_world_rank()), seconds, fmt::join(names, " and "), what);
}

void RankContext::end_wait() {
  own_status().waits_in.set("");
  own_status().beat();
  if (link_) link_->wait_is_over();
}

void RankContext::retreat(std::string_view message) {
  failure_->claim(own_world_rank(), 1, message);
  // Other processes map shared memory themselves; only threads could touch memory that is gone.
  if (!process_ids_.empty()) return;
  for (int peer = 0; peer < size(); ++peer)
    while (peer != self_ && status_of(peer).busy.load() != 0) sched_yield();
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
  WaitingScope waiting(*this, what);
  Standstill still;
  int64_t checked = 0;
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
      check_standstill(still, peer, what);
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
