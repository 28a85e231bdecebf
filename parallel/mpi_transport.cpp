#include "parallel/mpi_transport.h"

#include <algorithm>
#include <optional>
#include <sched.h>
#include <time.h>

#include "parallel/bytes.h"

namespace adagate {
namespace {

constexpr int64_t kChunkBytes = int64_t{1} << 30;  // MPI counts are int

}  // namespace

void fail_mpi(int code, const char* call) {
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(code, text, &length);
  fail("MPI: {} in {}", text, call);
}

MpiTransport::MpiTransport(MPI_Comm comm, MPI_Comm async_comm, std::shared_ptr<RankContext> context)
    : comm_(comm), async_comm_(async_comm), context_(std::move(context)) {
  ADAGATE_MPI(MPI_Comm_rank(comm_, &rank_));
  ADAGATE_MPI(MPI_Comm_size(comm_, &size_));
}

MpiTransport::~MpiTransport() {
  context_->remove_progress(this);
  int over = 0;
  MPI_Finalized(&over);
  if (over) return;
  MPI_Comm_free(&async_comm_);
  MPI_Comm_free(&comm_);
}

template <class Done>
void MpiTransport::wait_until(const char* what, Done&& done) {
  // Messages from a rank on another core take microseconds: polling is fastest. Longer waits give
  // the core to ranks that share it, and then to the system.
  constexpr int kPolls = 200, kYields = 2000, kPollsPerCheck = 500;
  std::optional<WaitingScope> waiting;
  Standstill still;
  for (int64_t i = 0; !done(); ++i) {
    if (i < kPolls) continue;
    // Another rank may stand in this very call because a sum begun earlier needs this one's part.
    context_->progress();
    if (i < kPolls + kYields) {
      sched_yield();
    } else {
      if (!waiting) waiting.emplace(*context_, what);
      timespec nap{0, 50'000};
      nanosleep(&nap, nullptr);
    }
    if (i % kPollsPerCheck != 0) continue;
    try {
      context_->check_health(-1, what);
      context_->check_standstill(still, -1, what);
    } catch (const Error& e) {
      // Said to the others before this rank leaves, who would wait for it else.
      context_->retreat(e.what());
      throw;
    }
  }
  // A rank that slept has shown itself as waiting; a short wait is work like any other.
  if (!waiting) context_->own_status().beat();
}

void MpiTransport::wait(std::vector<MPI_Request>& requests, const char* what) {
  wait_until(what, [&] { return finished(requests); });
}

void MpiTransport::barrier() {
  std::vector<MPI_Request> request(1);
  ADAGATE_MPI(MPI_Ibarrier(comm_, request.data()));
  wait(request, "barrier");
}

void MpiTransport::all_reduce(void* data, int64_t count, DType dtype, ReduceOp op) {
  MpiSum sum(comm_, data, count, dtype, op);
  wait_until("all_reduce", [&] { return sum.advance(); });
}

void MpiTransport::all_gather(const void* send, void* recv, int64_t bytes) {
  std::vector<int64_t> starts;
  for (int r = 0; r <= size_; ++r) starts.push_back(r * bytes);
  MpiGather gather(comm_, send, recv, std::move(starts));
  wait_until("all_gather", [&] { return gather.advance(); });
}

void MpiTransport::reduce_scatter(const void* send, void* recv, int64_t count, DType dtype,
                                  ReduceOp op) {
  std::vector<int64_t> starts;
  for (int r = 0; r <= size_; ++r) starts.push_back(r * count);
  MpiScatter scatter(comm_, send, recv, std::move(starts), dtype, op);
  wait_until("reduce_scatter", [&] { return scatter.advance(); });
}

void MpiTransport::broadcast(void* data, int64_t bytes, int root) {
  check(root >= 0 && root < size_, "broadcast: root {} in a group of {} ranks", root, size_);
  for (int64_t at = 0; at < bytes; at += kChunkBytes) {
    std::vector<MPI_Request> request(1);
    ADAGATE_MPI(MPI_Ibcast(static_cast<std::byte*>(data) + at,
                           static_cast<int>(std::min(kChunkBytes, bytes - at)), MPI_BYTE, root,
                           comm_, request.data()));
    wait(request, "broadcast");
  }
}

void MpiTransport::all_to_all_v(const AllToAllV& x) {
  auto n = static_cast<size_t>(size_);
  check(x.send_rows.size() == n && x.recv_rows.size() == n,
        "all_to_all_v: {} send and {} receive counts in a group of {} ranks", x.send_rows.size(),
        x.recv_rows.size(), n);
  // What a rank sends to itself is copied: nobody else would notice that the two differ.
  check(x.send_rows[static_cast<size_t>(rank_)] == x.recv_rows[static_cast<size_t>(rank_)],
        "all_to_all_v: rank {0} sends {1} rows to rank {0}, which expects {2}", rank_,
        x.send_rows[static_cast<size_t>(rank_)], x.recv_rows[static_cast<size_t>(rank_)]);
  std::vector<MessagePart> out, in;
  int64_t sent = 0, received = 0;
  for (size_t r = 0; r < n; ++r) {
    out.push_back({sent * x.row_bytes, x.send_rows[r] * x.row_bytes});
    in.push_back({received * x.row_bytes, x.recv_rows[r] * x.row_bytes});
    sent += x.send_rows[r];
    received += x.recv_rows[r];
  }
  std::vector<MPI_Request> requests;
  start_exchange(comm_, static_cast<const std::byte*>(x.send), out, static_cast<std::byte*>(x.recv),
                 in, requests);
  wait(requests, "all_to_all_v");
}

class MpiRequest final : public Request {
 public:
  MpiRequest(std::shared_ptr<MpiTransport> transport, std::shared_ptr<MpiTask> task,
             const char* call)
      : transport_(std::move(transport)), task_(std::move(task)), call_(call) {}
  ~MpiRequest() override {
    // The peers count on this rank's share. But while an error unwinds the stack they may be gone.
    if (!task_->is_finished() && std::uncaught_exceptions() == 0) try {
        wait();
      } catch (const Error&) {
      }
  }
  bool test() override {
    if (task_->is_finished()) return true;
    transport_->progress();
    if (!task_->is_finished()) transport_->context_->check_health(-1, call_);
    return task_->is_finished();
  }
  void wait() override {
    transport_->wait_until(call_, [&] { return test(); });
  }

 private:
  std::shared_ptr<MpiTransport> transport_;
  std::shared_ptr<MpiTask> task_;
  const char* call_;
};

std::unique_ptr<Request> MpiTransport::start(std::shared_ptr<MpiTask> task, const char* call) {
  tasks_.push_back(task);
  context_->add_progress(this);
  progress();
  return std::make_unique<MpiRequest>(shared_from_this(), std::move(task), call);
}

std::unique_ptr<Request> MpiTransport::all_reduce_async(void* data, int64_t count, DType dtype,
                                                        ReduceOp op) {
  return start(std::make_shared<MpiSum>(async_comm_, data, count, dtype, op), "all_reduce_async");
}

std::unique_ptr<Request> MpiTransport::all_gather_async(const void* send, void* recv,
                                                        std::vector<int64_t> starts, DType dtype) {
  for (int64_t& start : starts) start = bytes_of(start, dtype);
  return start(std::make_shared<MpiGather>(async_comm_, send, recv, std::move(starts)),
               "all_gather_async");
}

std::unique_ptr<Request> MpiTransport::reduce_scatter_async(const void* send, void* recv,
                                                            std::vector<int64_t> starts,
                                                            DType dtype, ReduceOp op) {
  return start(std::make_shared<MpiScatter>(async_comm_, send, recv, std::move(starts), dtype, op),
               "reduce_scatter_async");
}

void MpiTransport::progress() {
  // One at a time, in the order in which all ranks began them: messages of two tasks have the same
  // tags and would be mixed up.
  while (!tasks_.empty() && tasks_.front()->advance()) tasks_.pop_front();
  if (tasks_.empty()) context_->remove_progress(this);
}

}  // namespace adagate
