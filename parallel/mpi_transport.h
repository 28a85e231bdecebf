// Collectives through MPI messages: between nodes, and wherever ranks cannot reach each other's
// memory.
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/mpi_calls.h"
#include "parallel/rank_context.h"

namespace adagate {

// A sum in cache-sized pieces, two stages each: every rank collects its slice of the piece from
// all, sums it in rank order, and sends the result to all. A small sum is one exchange of
// everything.
class MpiSum {
 public:
  MpiSum(MPI_Comm comm, void* data, int64_t count, DType dtype, ReduceOp op);
  // Does what can be done without waiting; true once finished.
  bool advance();
  bool is_finished() const { return stage_ == Stage::finished; }

 private:
  enum class Stage : uint8_t { start, collect, spread, gather_small, finished };
  void start_piece();
  void start_collect();
  void start_spread();
  void start_small();
  void combine(const std::byte* parts, int64_t part_count, std::byte* to);

  MPI_Comm comm_;
  int rank_ = 0, size_ = 1;
  std::byte* data_;
  int64_t count_;
  DType dtype_;
  ReduceOp op_;
  int64_t piece_ = 0;  // elements of a piece
  int64_t begin_ = 0;  // first element of the current piece
  Stage stage_ = Stage::start;
  std::vector<std::byte> parts_;  // [size, slice]
  std::vector<MPI_Request> requests_;
};

class MpiTransport : public Progress, public std::enable_shared_from_this<MpiTransport> {
 public:
  // Takes over both communicators: asynchronous sums have their own, since ranks reach their steps
  // at different moments between the other calls.
  MpiTransport(MPI_Comm comm, MPI_Comm async_comm, std::shared_ptr<RankContext> context);
  ~MpiTransport() override;

  MPI_Comm comm() const { return comm_; }
  int rank() const { return rank_; }
  int size() const { return size_; }

  void barrier();
  void all_reduce(void* data, int64_t count, DType dtype, ReduceOp op);
  void all_gather(const void* send, void* recv, int64_t bytes);
  void reduce_scatter(const void* send, void* recv, int64_t count, DType dtype, ReduceOp op);
  void broadcast(void* data, int64_t bytes, int root);
  void all_to_all_v(const AllToAllV& exchange);
  std::unique_ptr<Request> all_reduce_async(void* data, int64_t count, DType dtype, ReduceOp op);

  void progress() override;
  // Calls `done` (which makes progress) until it is true, politely. Throws Error when a rank has
  // failed or the time is up.
  template <class Done>
  void wait_until(const char* what, Done&& done);

 private:
  struct Part {
    int64_t offset, bytes;  // in units of bytes
  };
  // Sends send_parts[r] to and receives recv_parts[r] from every rank r.
  void exchange(const std::byte* send, const std::vector<Part>& send_parts, std::byte* recv,
                const std::vector<Part>& recv_parts, const char* what);
  void wait(std::vector<MPI_Request>& requests, const char* what);

  MPI_Comm comm_, async_comm_;
  int rank_ = 0, size_ = 1;
  std::shared_ptr<RankContext> context_;
  std::deque<std::shared_ptr<MpiSum>> sums_;  // not finished, in the order of their posts
  friend class MpiSumRequest;
};

}  // namespace adagate
