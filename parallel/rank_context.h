// What a rank knows about the other ranks it shares memory with (threads of its process, or
// processes of its node): who has failed, ended or left, and how to wait for one of them.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace adagate {

// One rank's public state. In shared memory: nothing but lock-free atomics and plain bytes.
struct alignas(64) RankStatus {
  static constexpr size_t kNoteWords = 15;
  std::atomic<uint32_t> left{0};  // has returned; joins no further collective
  std::atomic<uint32_t> busy{0};  // reads or writes buffers of other ranks
  std::array<std::atomic<uint64_t>, kNoteWords> note{};  // text, zero-terminated

  void set_note(std::string_view text);
  std::string read_note() const;
};

// The first failure of the program; later ones are consequences.
struct alignas(64) FailureRecord {
  std::atomic<uint32_t> claimed{0};
  std::atomic<int32_t> rank{-1};  // written last: world rank that failed
  std::atomic<int32_t> exit_code{1};
  std::atomic<uint32_t> told{0};  // the user has been told
  char message[1024] = {};

  // True for the one rank whose failure this is, every time; the first message stays.
  bool claim(int failed_rank, int code, std::string_view text);
};

// Wakes all that sleep in RankContext::wait on `word`.
void wake_sleepers(std::atomic<uint32_t>& word);

// Work that goes on while a rank waits for something else.
class Progress {
 public:
  virtual ~Progress() = default;
  virtual void progress() = 0;
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

// Ranks are named by their index in `status`; world_ranks translates to what the user sees.
class RankContext {
 public:
  RankContext(FailureRecord* failure, RankStatus* status, std::vector<int> world_ranks, int self,
              std::shared_ptr<void> keep_alive);
  ~RankContext();
  RankContext(const RankContext&) = delete;
  RankContext& operator=(const RankContext&) = delete;

  int self() const { return self_; }
  int size() const { return static_cast<int>(world_ranks_.size()); }
  int world_rank(int peer) const { return world_ranks_[static_cast<size_t>(peer)]; }
  int own_world_rank() const { return world_rank(self_); }
  RankStatus& own_status() { return status_[self_]; }
  FailureRecord& failure() { return *failure_; }

  // Watch these processes (by rank index): one that ends makes waits throw.
  void watch_processes(const std::vector<int64_t>& process_ids);
  // Spin before yielding: only when every waiting rank has a core of its own.
  void set_spinning(bool on) { spin_ = on; }

  // Returns once `signal` of rank `peer` has reached `target`. Throws Error when a rank has failed,
  // ended or left, or after collective_timeout() seconds; the buffers of this rank are then in
  // nobody's use any more. `what` names the collective.
  void wait(Signal& signal, uint32_t target, int peer, const char* what);

  // Throws Error if a rank has failed, or `peer` (if >= 0) cannot come any more.
  void check_health(int peer, const char* what);

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
  std::string describe(int peer) const;
  void check_processes(const char* what);
  void wait_slowly(Signal& signal, uint32_t target, int peer, const char* what);
  [[noreturn]] void fail_timeout(int peer, const char* what, double seconds);

  FailureRecord* failure_;
  RankStatus* status_;
  std::vector<int> world_ranks_;
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

// The status that set_progress_note writes: the calling thread's own, else the process's (the first
// one bound, as long as its context lives).
void bind_progress_note(RankStatus* status, bool whole_process);

}  // namespace adagate
