// What each rank shows of itself: what it is doing, whether it moves, and the first failure. Lies
// in memory that the ranks of a node share; NodeLink copies it between nodes.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>

namespace adagate {

// A short text that others may read while it is written (they then read a mixture). At most
// 8 * Words - 1 bytes are kept.
template <size_t Words>
class SharedText {
 public:
  void set(std::string_view text);
  std::string read() const;

 private:
  std::array<std::atomic<uint64_t>, Words> words_{};  // zero-terminated
};

// One rank's public state. In shared memory: nothing but lock-free atomics and plain bytes.
struct alignas(64) RankStatus {
  std::atomic<uint32_t> left{0};   // has returned; joins no further collective
  std::atomic<uint32_t> busy{0};   // reads or writes buffers of other ranks
  std::atomic<uint32_t> beats{0};  // signs of life, by beat(); a rank that waits gives none
  SharedText<3> waits_in;          // the collective in which it waits for others; empty: it works
  SharedText<15> note;             // the last set_progress_note

  void beat() { beats.fetch_add(1, std::memory_order_relaxed); }
};

// The first failure of the program, as known on this node; later ones are consequences.
struct alignas(64) FailureRecord {
  std::atomic<uint32_t> claimed{0};
  std::atomic<int32_t> rank{-1};  // written last: world rank that failed
  std::atomic<int32_t> exit_code{1};
  std::atomic<uint32_t> told{0};  // the user has been told, by some rank of the program
  char message[1024] = {};

  // True for the one rank whose failure this is, every time; the first message stays.
  bool claim(int failed_rank, int code, std::string_view text);
};

// The status that set_progress_note writes and beat() moves: the calling thread's own, else the
// process's (the last one bound, until unbind_status).
void bind_status(RankStatus* status, bool whole_process);
void unbind_status(RankStatus* status);

}  // namespace adagate
