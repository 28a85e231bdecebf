// Short messages between nodes: what the ranks of a node read of each other in shared memory, the
// others are told. It is served wherever a rank waits and wherever it calls beat().
//
// How a failure reaches the user once, however many hosts there are:
//   1. A rank that fails claims its node's FailureRecord and announces the failure to the first
//      rank of every other node, which claims the record there: all collectives then throw it.
//   2. Rank 0 tells: its own error, or the first that it hears of. A rank that has claimed the
//      record of its node gives rank 0 a moment for that (apps/launch.h), then tells itself.
//   3. Whoever tells sets `told` on its node and sends it to all ranks of the other nodes. A rank
//      that knows of a failure that is told ends in silence.
// What fails before MPI has started is told with the first exchange, see parallel/hello.h.
#pragma once

#include <array>
#include <memory>
#include <string_view>
#include <vector>

#include "parallel/mpi_calls.h"
#include "parallel/rank_context.h"

namespace adagate {

struct LinkMessage {
  enum Kind : int32_t { status, failure, told };
  int32_t kind = status;
  int32_t rank = 0;  // whose status, which failed
  int32_t exit_code = 0;
  uint32_t beats = 0;
  char waits_in[24] = {};
  char text[1024] = {};  // note, message; sent as far as it goes
};

class NodeLink final : public NewsLink {
 public:
  // Takes over `comm`, of all ranks in their world order; first_ranks: the lowest rank of the node
  // of each rank. `status`: one for each rank of the world. Belongs to the calling thread.
  NodeLink(MPI_Comm comm, std::vector<int> first_ranks, FailureRecord* failure, RankStatus* status,
           std::shared_ptr<void> keep_alive);
  ~NodeLink() override;

  // Every 5 ms at most: takes in what has come, and shows this rank's status to the other nodes
  // where it is due. Never throws: a link that breaks is left alone.
  void progress() override;
  // Who has been shown that this rank waits is shown that it no longer does.
  void wait_is_over() override;
  // progress() of the link that the calling thread made last, if any.
  static void serve_this_thread();

  void announce_failure();  // that of the record, once
  void announce_told();
  // Makes progress until all messages have left this process, for half a second at most.
  void flush();

 private:
  struct Letter {
    LinkMessage message;
    MPI_Request request = MPI_REQUEST_NULL;
  };
  bool is_first(int rank) const { return first_ranks_[static_cast<size_t>(rank)] == rank; }
  bool is_near(int rank) const {
    return first_ranks_[static_cast<size_t>(rank)] == first_ranks_[static_cast<size_t>(rank_)];
  }
  void send(int rank, Letter& letter);
  void take(const LinkMessage& message);
  void receive();
  void send_status();
  bool is_sent(Letter& letter);
  bool works(int code);

  MPI_Comm comm_;
  int rank_ = 0, size_ = 1;
  std::vector<int> first_ranks_;
  FailureRecord* failure_;
  RankStatus* status_;
  std::shared_ptr<void> keep_alive_;
  std::vector<std::unique_ptr<Letter>> statuses_;  // by world rank; null: gets none
  std::vector<std::unique_ptr<Letter>> others_;    // of failures
  int64_t served_at_ = 0, shown_at_ = 0;           // nanoseconds
  bool shown_waiting_ = false, announced_ = false, broken_ = false;
};

}  // namespace adagate
