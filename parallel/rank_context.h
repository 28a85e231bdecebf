// What a rank knows about the other ranks: who has failed, ended, left or stands still, and how to
// wait for one of them that it shares memory with (a thread of its process, a process of its node).
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/rank_status.h"

namespace adagate {

// Wakes all that sleep in RankContext::wait on `word`.
void wake_sleepers(std::atomic<uint32_t>& word);

// Work that goes on while a rank waits for something else.
class Progress {
 public:
  virtual ~Progress() = default;
  virtual void progress() = 0;
};

// News from ranks that share no memory with this one, and for them.
class NewsLink : public Progress {
 public:
  virtual void wait_is_over() = 0;  // this rank works again
};

// A counter of one rank that others wait for. Each on its own cache line.
struct alignas(64) Signal {
  std::atomic<uint32_t> value{0};
  std::atomic<uint32_t> sleepers{0};

  bool reached(uint32_t target) const {
    return static_cast<int32_t>(value.load(std::memory_order_acquire) - target) >= 0;
  }
  void raise(uint32_t v) {
    value.store(v, std::memory_order_seq_cst);
    if (sleepers.load(std::memory_order_seq_cst) != 0) wake_sleepers(value);
  }
};

// How long all ranks have been standing still, in the eyes of one that waits.
struct Standstill {
  uint64_t beats = ~uint64_t{0};
  int64_t since = 0;  // nanoseconds
};

// Ranks that share memory ("peers") are named by their index in world_ranks, which translates to
// what the user sees.
class RankContext {
 public:
  // status: one for each rank of the world, by world rank.
  RankContext(FailureRecord* failure, RankStatus* status, int world_size,
              std::vector<int> world_ranks, int self, std::shared_ptr<void> keep_alive);
  ~RankContext();
  RankContext(const RankContext&) = delete;
  RankContext& operator=(const RankContext&) = delete;

  int self() const { return self_; }
  int size() const { return static_cast<int>(world_ranks_.size()); }
  int world_rank(int peer) const { return world_ranks_[static_cast<size_t>(peer)]; }
  int own_world_rank() const { return world_rank(self_); }
  RankStatus& own_status() { return status_of(self_); }
  FailureRecord& failure() { return *failure_; }
  // "rank 3", with several hosts "rank 3 (host node17)".
  std::string name_of(int world_rank) const;

  // By world rank; not called where there is one host only.
  void set_hosts(std::vector<std::string> hosts) { hosts_ = std::move(hosts); }
  // Brings news from other nodes, asked for while this rank waits.
  void set_link(std::shared_ptr<NewsLink> link) { link_ = std::move(link); }
  void end_wait();  // see WaitingScope

  // Watch these processes (by rank index): one that ends makes waits throw.
  void watch_processes(const std::vector<int64_t>& process_ids);
  // Spin before yielding: only when every waiting rank has a core of its own.
  void set_spinning(bool on) { spin_ = on; }

  // Returns once `signal` of rank `peer` has reached `target`. Throws Error when a rank has failed,
  // ended or left, or check_standstill throws; the buffers of this rank are then in nobody's use
  // any more. `what` names the collective.
  void wait(Signal& signal, uint32_t target, int peer, const char* what);

  // Throws Error if a rank has failed, or `peer` (if >= 0) cannot come any more.
  void check_health(int peer, const char* what);

  // For a rank that has waited in `what` since it made `still`, maybe for `peer` (if >= 0), to call
  // again and again. Throws Error when no rank of the world has shown a sign of life for
  // collective_timeout() seconds: as long as one works, what the others wait for may still come.
  void check_standstill(Standstill& still, int peer, const char* what);

  // Throws Error: `bytes` of the memory of `peer` could not be read, with this errno. Where it has
  // failed or ended it says that instead; the kernel takes a process's memory before it tells.
  [[noreturn]] void fail_unreadable(int peer, const char* what, int64_t bytes, int error);

  // This rank gives up with an error: tells the others, and returns when none uses its buffers.
  void retreat(std::string_view message);

  void add_progress(Progress* work);
  void remove_progress(Progress* work);
  void progress();

 private:
  bool failure_seen() const { return failure_->rank.load(std::memory_order_acquire) >= 0; }
  RankStatus& status_of(int peer) const { return status_[world_rank(peer)]; }
  // With what it does, or did last.
  std::string describe(int world_rank) const;
  // Those that keep the others waiting, as far as can be known.
  std::vector<int> suspects(int peer) const;
  // Seconds that this rank lets others speak first.
  double turn() const;
  void check_processes(const char* what);
  void wait_slowly(Signal& signal, uint32_t target, int peer, const char* what);

  FailureRecord* failure_;
  RankStatus* status_;  // [world_size_]
  int world_size_;
  std::vector<int> world_ranks_;
  std::vector<std::string> hosts_;
  std::shared_ptr<NewsLink> link_;
  int self_;
  bool spin_ = true;
  std::vector<int> process_fds_;
  std::vector<int64_t> process_ids_;
  std::vector<Progress*> pending_;
  std::shared_ptr<void> keep_alive_;
};

// Lifetime of a rank's access to other ranks' buffers. Throws Error, before any access, when a rank
// has failed: a rank that fails waits for the scopes that began before, and frees its buffers.
class BusyScope {
 public:
  BusyScope(RankContext& context, const char* what);
  ~BusyScope() { context_.own_status().busy.store(0); }
  BusyScope(const BusyScope&) = delete;
  BusyScope& operator=(const BusyScope&) = delete;

 private:
  RankContext& context_;
};

// For as long as a rank waits for others: what it shows them.
class WaitingScope {
 public:
  WaitingScope(RankContext& context, const char* what) : context_(context) {
    context_.own_status().waits_in.set(what);
  }
  ~WaitingScope() { context_.end_wait(); }
  WaitingScope(const WaitingScope&) = delete;
  WaitingScope& operator=(const WaitingScope&) = delete;

 private:
  RankContext& context_;
};

}  // namespace adagate
