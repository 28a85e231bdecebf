// Collectives through MPI messages, each a machine that is asked again and again to go on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/mpi_calls.h"

namespace adagate {

// True once all are complete; they are then forgotten.
bool finished(std::vector<MPI_Request>& requests);

struct MessagePart {
  int64_t offset = 0, bytes = 0;
};

// Starts to send out[r] of `send` to, and to receive in[r] of `recv` from every rank r; this rank's
// own part is copied at once. What is empty sends no message.
void start_exchange(MPI_Comm comm, const std::byte* send, const std::vector<MessagePart>& out,
                    std::byte* recv, const std::vector<MessagePart>& in,
                    std::vector<MPI_Request>& requests);

// Two tasks on one MPI communicator must run one after the other, in the same order on all ranks:
// their messages would be taken for each other's.
class MpiTask {
 public:
  explicit MpiTask(MPI_Comm comm);
  virtual ~MpiTask() = default;
  MpiTask(const MpiTask&) = delete;
  MpiTask& operator=(const MpiTask&) = delete;

  // Does what can be done without waiting; true once finished.
  bool advance() { return finished_ = finished_ || step(); }
  bool is_finished() const { return finished_; }

 protected:
  virtual bool step() = 0;

  MPI_Comm comm_;
  int rank_ = 0, size_ = 1;
  std::vector<MPI_Request> requests_;

 private:
  bool finished_ = false;
};

// A sum in cache-sized pieces, two stages each: every rank collects its slice of the piece from
// all, sums it in rank order, and sends the result to all. A small sum is one exchange of
// everything.
class MpiSum final : public MpiTask {
 public:
  MpiSum(MPI_Comm comm, void* data, int64_t count, DType dtype, ReduceOp op);

 private:
  bool step() override;
  enum class Stage : uint8_t { start, collect, spread, gather_small, finished };
  void start_piece();
  void start_collect();
  void start_spread();
  void start_small();
  void combine(const std::byte* parts, int64_t part_count, std::byte* to);

  std::byte* data_;
  int64_t count_;
  DType dtype_;
  ReduceOp op_;
  int64_t piece_ = 0;  // elements of a piece
  int64_t begin_ = 0;  // first element of the current piece
  Stage stage_ = Stage::start;
  std::vector<std::byte> parts_;  // [size, slice]
};

// starts: of the parts in the whole buffer, in bytes ([size + 1]).
class MpiGather final : public MpiTask {
 public:
  MpiGather(MPI_Comm comm, const void* send, void* recv, std::vector<int64_t> starts);

 private:
  bool step() override;

  const std::byte* send_;
  std::byte* recv_;
  std::vector<int64_t> starts_;
  bool started_ = false;
};

// Cache-sized pieces of all parts, one after the other: every rank collects that of its own part
// from all and sums it in rank order. starts: of the parts, in elements ([size + 1]).
class MpiScatter final : public MpiTask {
 public:
  MpiScatter(MPI_Comm comm, const void* send, void* recv, std::vector<int64_t> starts, DType dtype,
             ReduceOp op);

 private:
  bool step() override;
  // Elements of rank r's part that belong to the current piece.
  int64_t count_of(int r) const;
  void start_piece();
  void combine_piece();

  const std::byte* send_;
  std::byte* recv_;
  std::vector<int64_t> starts_;
  DType dtype_;
  ReduceOp op_;
  int64_t piece_ = 0;             // elements of a part
  int64_t longest_ = 0;           // part, in elements
  int64_t begin_ = 0, next_ = 0;  // of the current and the next piece, from the start of a part
  bool collecting_ = false;       // the current piece
  std::vector<std::byte> parts_;  // [size, own elements of the piece]
};

}  // namespace adagate
