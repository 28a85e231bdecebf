// Collectives among ranks that share memory: threads of a process, or processes of a node.
#pragma once

#include <array>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/peer_memory.h"
#include "parallel/rank_context.h"

namespace adagate {

enum class Call : uint8_t {
  barrier,
  all_reduce,
  all_gather,
  reduce_scatter,
  broadcast,
  all_to_all_v,
  all_reduce_async,
  all_gather_async,
  reduce_scatter_async
};
constexpr const char* kCallNames[] = {
    "barrier",      "all_reduce",       "all_gather",       "reduce_scatter",      "broadcast",
    "all_to_all_v", "all_reduce_async", "all_gather_async", "reduce_scatter_async"};
inline const char* name_of_call(Call call) {
  return kCallNames[static_cast<size_t>(call)];
}

// What a rank asks for, shown to the others: ranks that disagree get an Error instead of a hang.
struct CallRecord {
  Call call = Call::barrier;
  DType dtype = DType::u8;
  ReduceOp op = ReduceOp::sum;
  uint8_t eager = 0;  // the data are in the eager buffer
  int32_t root = 0;
  int64_t count = 0;
  BufferName buffer;
  int64_t part = 0;  // this rank's elements of a buffer that is cut into parts

  bool agrees_with(const CallRecord& o) const {
    return call == o.call && dtype == o.dtype && op == o.op && root == o.root && count == o.count;
  }
};

// One rank's lines in memory that all ranks of the group can address.
struct RankBoard {
  static constexpr int64_t kEagerBytes = 64 << 10;
  static constexpr uint32_t kAsyncDepth = 64;
  Signal arrived;  // synchronisation points this rank has reached
  Signal posted;   // asynchronous calls posted
  Signal done;     // asynchronous calls of which this rank has done its share
  alignas(64) CallRecord calls[2];
  CallRecord posts[kAsyncDepth];
  alignas(64) std::byte eager[2][kEagerBytes];
};

// Data are pulled: a rank names its buffer, all meet, each reads what it needs from its peers, and
// all meet again before the buffers may change. Small data travel in the eager buffers instead, two
// per rank in turn: whoever writes one knows from the meeting in between that all have read it, so
// one meeting is enough. Calls return false, on all ranks alike, when some buffer is out of the
// peers' reach; the caller then needs another way.
//
// Asynchronous calls are posted on a ring instead, and each rank does its share, in the order of
// the posts, when it makes progress and finds that all have posted. Only then is it known whether
// all buffers can be reached; else `otherwise` starts the call another way, on all ranks alike.
class SharedGroup : public Progress, public std::enable_shared_from_this<SharedGroup> {
 public:
  // boards: one per rank of the group; members: index of each in `context`.
  SharedGroup(std::shared_ptr<RankContext> context, RankBoard* boards, std::vector<int> members,
              int rank, std::shared_ptr<PeerMemory> memory, std::shared_ptr<void> keep_alive);
  ~SharedGroup() override;

  int rank() const { return rank_; }
  int size() const { return static_cast<int>(members_.size()); }
  int member(int rank) const { return members_[static_cast<size_t>(rank)]; }
  RankContext& context() { return *context_; }

  void barrier();
  bool all_reduce(void* data, int64_t count, DType dtype, ReduceOp op);
  bool all_gather(const void* send, void* recv, int64_t count, DType dtype);
  bool reduce_scatter(const void* send, void* recv, int64_t count, DType dtype, ReduceOp op);
  bool broadcast(void* data, int64_t count, DType dtype, int root);
  bool all_to_all_v(const AllToAllV& exchange);

  using Otherwise = std::function<std::unique_ptr<Request>()>;
  std::unique_ptr<Request> all_reduce_async(void* data, int64_t count, DType dtype, ReduceOp op,
                                            Otherwise otherwise);
  // starts: of the parts, in elements ([size + 1], parallel/parts.h).
  std::unique_ptr<Request> all_gather_async(const void* send, void* recv,
                                            std::vector<int64_t> starts, DType dtype,
                                            Otherwise otherwise);
  std::unique_ptr<Request> reduce_scatter_async(const void* send, void* recv,
                                                std::vector<int64_t> starts, DType dtype,
                                                ReduceOp op, Otherwise otherwise);

  void progress() override;

 private:
  // An asynchronous call of this rank.
  struct Post {
    CallRecord record;
    const std::byte* send = nullptr;
    std::byte* recv = nullptr;
    std::vector<int64_t> starts = {};  // empty: no parts
    Otherwise otherwise = {};
    uint32_t number = 0;                      // from 1 on
    std::unique_ptr<Request> elsewhere = {};  // what `otherwise` has started
  };
  friend class PostedRequest;

  // The buffers of all ranks in one call.
  struct Buffers {
    CallRecord call;  // this rank's
    std::vector<BufferName> names = {};
    std::vector<void*> addresses = {};  // null: not mapped, or empty
    bool all_mapped = true;
  };

  RankBoard& board(int rank) { return boards_[rank]; }
  RankBoard& own() { return boards_[rank_]; }
  std::byte* eager_buffer(int rank) { return boards_[rank].eager[meetings_ & 1]; }
  CallRecord describe(Call call, const void* data, int64_t count, DType dtype, ReduceOp op,
                      int root) const;

  // Shows `record`, waits for all ranks, and compares.
  void meet(const CallRecord& record);
  void leave();  // waits until all ranks are done with the buffers of this call
  void wait_all(Signal RankBoard::*signal, uint32_t target, Call call);
  void compare(const CallRecord& mine, const CallRecord& theirs, int rank) const;
  const CallRecord& current(int rank) const { return boards_[rank].calls[meetings_ & 1]; }
  Buffers buffers_of_call() const;
  bool reaches(const Buffers& buffers) const { return buffers.all_mapped || memory_->can_copy(); }
  // The buffer of the next rank; one that holds nothing may lie anywhere.
  void add_buffer(Buffers& buffers, BufferName name, bool empty) const;
  // Bytes from `offset` on of rank r's buffer, which is not mapped. Throws Error.
  void copy_from(int r, BufferName buffer, Call call, int64_t offset, void* to, int64_t bytes);

  void sum_mapped(const Buffers& buffers);
  void sum_copied(const Buffers& buffers, std::byte* data);
  // Elements [first, first + count) of all ranks' buffers, combined into `to`. own: this rank's.
  void combine(const Buffers& buffers, const std::byte* own, int64_t first, int64_t count,
               std::byte* to);
  void combine_copied(const Buffers& buffers, const std::byte* own, int64_t first, int64_t count,
                      std::byte* to);
  // Rank r's buffer, of starts[r + 1] - starts[r] bytes, arrives at to + starts[r].
  void gather(const Buffers& buffers, const void* own, std::span<const int64_t> starts,
              std::byte* to);
  // Copies the rows for this rank; says what is wrong if a peer sends another number than expected.
  std::string pull_rows(const AllToAllV& x, std::span<const std::byte* const> from);

  std::unique_ptr<Request> start(Post post);
  void compare_parts(const Post& mine, const CallRecord& theirs, int rank) const;
  Buffers buffers_of(const Post& post);
  void do_share(Post& post);
  bool is_done(const Post& post);
  void wait_for(uint32_t number, Call call);

  std::shared_ptr<RankContext> context_;
  RankBoard* boards_;
  std::vector<int> members_;
  int rank_;
  std::shared_ptr<PeerMemory> memory_;
  std::shared_ptr<void> keep_alive_;
  uint32_t meetings_ = 0;  // records shown so far; its parity chooses the buffers
  uint32_t points_ = 0;    // synchronisation points reached
  uint32_t posts_ = 0;
  std::deque<std::shared_ptr<Post>> to_do_;  // posted, own share not yet done
  std::vector<std::byte> scratch_;
  std::vector<const void*> sources_;  // kept: a small sum is about a microsecond
};

}  // namespace adagate
