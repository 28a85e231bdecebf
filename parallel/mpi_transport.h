// Collectives through MPI messages: between nodes, and wherever ranks cannot reach each other's
// memory.
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/mpi_tasks.h"
#include "parallel/rank_context.h"

namespace adagate {

class MpiTransport : public Progress, public std::enable_shared_from_this<MpiTransport> {
 public:
  // Takes over both communicators: asynchronous calls have their own, since ranks reach their steps
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
  // starts: of the parts, in elements ([size + 1], parallel/parts.h).
  std::unique_ptr<Request> all_gather_async(const void* send, void* recv,
                                            std::vector<int64_t> starts, DType dtype);
  std::unique_ptr<Request> reduce_scatter_async(const void* send, void* recv,
                                                std::vector<int64_t> starts, DType dtype,
                                                ReduceOp op);

  void progress() override;
  // Calls `done` (which makes progress) until it is true, politely. Throws Error when a rank has
  // failed or the time is up.
  template <class Done>
  void wait_until(const char* what, Done&& done);

 private:
  std::unique_ptr<Request> start(std::shared_ptr<MpiTask> task, const char* call);
  void wait(std::vector<MPI_Request>& requests, const char* what);

  MPI_Comm comm_, async_comm_;
  int rank_ = 0, size_ = 1;
  std::shared_ptr<RankContext> context_;
  std::deque<std::shared_ptr<MpiTask>> tasks_;  // not finished, in the order of their posts
  friend class MpiRequest;
};

}  // namespace adagate
