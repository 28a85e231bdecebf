#include "parallel/mpi_transport.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <sched.h>
#include <time.h>

#include "parallel/finished_request.h"
#include "parallel/reduce_kernels.h"

namespace adagate {
namespace {

constexpr int64_t kSmallBytes = 16 << 10;  // sums up to here exchange everything at once
constexpr int64_t kPieceBytes = 1 << 20;   // all ranks' parts of a piece stay in the L2 cache
constexpr int64_t kSliceBytes = 64 << 10;  // but no message is smaller than this
constexpr int64_t kChunkBytes = int64_t{1} << 30;  // MPI counts are int
constexpr int kCollectTag = 1, kSpreadTag = 2, kExchangeTag = 3;

int64_t bytes_of(int64_t count, DType dtype) {
  return count * static_cast<int64_t>(size_of(dtype));
}

bool finished(std::vector<MPI_Request>& requests) {
  if (requests.empty()) return true;
  int done = 0;
  ADAGATE_MPI(
      MPI_Testall(static_cast<int>(requests.size()), requests.data(), &done, MPI_STATUSES_IGNORE));
  if (done) requests.clear();
  return done != 0;
}

}  // namespace

void fail_mpi(int code, const char* call) {
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(code, text, &length);
  fail("MPI: {} in {}", text, call);
}

MpiSum::MpiSum(MPI_Comm comm, void* data, int64_t count, DType dtype, ReduceOp op)
    : comm_(comm), data_(static_cast<std::byte*>(data)), count_(count), dtype_(dtype), op_(op) {
  ADAGATE_MPI(MPI_Comm_rank(comm, &rank_));
  ADAGATE_MPI(MPI_Comm_size(comm, &size_));
  piece_ = std::max(kPieceBytes, kSliceBytes * size_) / static_cast<int64_t>(size_of(dtype));
}

bool MpiSum::advance() {
  while (stage_ != Stage::finished) {
    if (!finished(requests_)) return false;
    switch (stage_) {
      case Stage::start:
        start_piece();
        break;
      case Stage::collect:
        start_spread();
        break;
      case Stage::spread:
        begin_ += piece_;
        start_piece();
        break;
      case Stage::gather_small:
        combine(parts_.data(), count_, data_);
        stage_ = Stage::finished;
        break;
      case Stage::finished:
        break;
    }
  }
  return true;
}

void MpiSum::start_piece() {
  if (begin_ >= count_)
    stage_ = Stage::finished;
  else if (bytes_of(count_, dtype_) <= kSmallBytes)
    start_small();
  else
    start_collect();
}

void MpiSum::start_small() {
  auto bytes = static_cast<int>(bytes_of(count_, dtype_));
  parts_.resize(static_cast<size_t>(bytes) * static_cast<size_t>(size_));
  requests_.resize(1);
  ADAGATE_MPI(MPI_Iallgather(data_, bytes, MPI_BYTE, parts_.data(), bytes, MPI_BYTE, comm_,
                             requests_.data()));
  stage_ = Stage::gather_small;
}

void MpiSum::start_collect() {
  int64_t count = std::min(piece_, count_ - begin_);
  auto [first, last] = slice_of(count, rank_, size_);
  int64_t own_bytes = bytes_of(last - first, dtype_);
  std::byte* piece = data_ + bytes_of(begin_, dtype_);
  parts_.resize(static_cast<size_t>(own_bytes * size_));
  for (int i = 0; i < size_; ++i) {
    int r = (rank_ + i) % size_;
    std::byte* part = parts_.data() + r * own_bytes;
    if (r == rank_) {
      std::memcpy(part, piece + bytes_of(first, dtype_), static_cast<size_t>(own_bytes));
      continue;
    }
    ADAGATE_MPI(MPI_Irecv(part, static_cast<int>(own_bytes), MPI_BYTE, r, kCollectTag, comm_,
                          &requests_.emplace_back()));
    auto [begin, end] = slice_of(count, r, size_);
    ADAGATE_MPI(MPI_Isend(piece + bytes_of(begin, dtype_),
                          static_cast<int>(bytes_of(end - begin, dtype_)), MPI_BYTE, r, kCollectTag,
                          comm_, &requests_.emplace_back()));
  }
  stage_ = Stage::collect;
}

void MpiSum::start_spread() {
  int64_t count = std::min(piece_, count_ - begin_);
  auto [first, last] = slice_of(count, rank_, size_);
  std::byte* piece = data_ + bytes_of(begin_, dtype_);
  std::byte* own = piece + bytes_of(first, dtype_);
  combine(parts_.data(), last - first, own);
  auto own_bytes = static_cast<int>(bytes_of(last - first, dtype_));
  for (int i = 1; i < size_; ++i) {
    int r = (rank_ + i) % size_;
    auto [begin, end] = slice_of(count, r, size_);
    ADAGATE_MPI(MPI_Irecv(piece + bytes_of(begin, dtype_),
                          static_cast<int>(bytes_of(end - begin, dtype_)), MPI_BYTE, r, kSpreadTag,
                          comm_, &requests_.emplace_back()));
    ADAGATE_MPI(
        MPI_Isend(own, own_bytes, MPI_BYTE, r, kSpreadTag, comm_, &requests_.emplace_back()));
  }
  stage_ = Stage::spread;
}

void MpiSum::combine(const std::byte* parts, int64_t part_count, std::byte* to) {
  std::vector<const void*> sources;
  for (int r = 0; r < size_; ++r) sources.push_back(parts + r * bytes_of(part_count, dtype_));
  void* destination = to;
  reduce_in_order(sources, {&destination, 1}, part_count, dtype_, op_);
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
  constexpr int kPolls = 200, kYields = 2000, kPollsPerCheck = 500;
  std::optional<WaitingScope> waiting;
  Standstill still;
  for (int64_t i = 0; !done(); ++i) {
    if (i < kPolls) continue;
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
      context_->retreat(e.what());
      throw;
    }
  }
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

void MpiTransport::exchange(const std::byte* send, const std::vector<Part>& send_parts,
                            std::byte* recv, const std::vector<Part>& recv_parts,
                            const char* what) {
  std::vector<MPI_Request> requests;
  auto in_chunks = [](const Part& part, auto&& f) {
    for (int64_t at = 0; at < part.bytes; at += kChunkBytes)
      f(part.offset + at, static_cast<int>(std::min(kChunkBytes, part.bytes - at)));
  };
  for (int i = 1; i < size_; ++i) {
    int from = (rank_ + size_ - i) % size_, to = (rank_ + i) % size_;
    in_chunks(recv_parts[static_cast<size_t>(from)], [&](int64_t offset, int bytes) {
      ADAGATE_MPI(MPI_Irecv(recv + offset, bytes, MPI_BYTE, from, kExchangeTag, comm_,
                            &requests.emplace_back()));
    });
    in_chunks(send_parts[static_cast<size_t>(to)], [&](int64_t offset, int bytes) {
      ADAGATE_MPI(MPI_Isend(send + offset, bytes, MPI_BYTE, to, kExchangeTag, comm_,
                            &requests.emplace_back()));
    });
  }
  const Part& mine = send_parts[static_cast<size_t>(rank_)];
  if (mine.bytes > 0)
    std::memcpy(recv + recv_parts[static_cast<size_t>(rank_)].offset, send + mine.offset,
                static_cast<size_t>(mine.bytes));
  wait(requests, what);
}

void MpiTransport::all_gather(const void* send, void* recv, int64_t bytes) {
  std::vector<Part> out, in;
  for (int r = 0; r < size_; ++r) {
    out.push_back({0, bytes});
    in.push_back({r * bytes, bytes});
  }
  exchange(static_cast<const std::byte*>(send), out, static_cast<std::byte*>(recv), in,
           "all_gather");
}

void MpiTransport::reduce_scatter(const void* send, void* recv, int64_t count, DType dtype,
                                  ReduceOp op) {
  int64_t piece = std::max(kPieceBytes / size_, kSliceBytes) / static_cast<int64_t>(size_of(dtype));
  std::vector<std::byte> parts(
      static_cast<size_t>(bytes_of(std::min(piece, count), dtype) * size_));
  for (int64_t begin = 0; begin < count; begin += piece) {
    int64_t n = std::min(piece, count - begin), bytes = bytes_of(n, dtype);
    std::vector<Part> out, in;
    std::vector<const void*> sources;
    for (int r = 0; r < size_; ++r) {
      out.push_back({bytes_of(r * count + begin, dtype), bytes});
      in.push_back({r * bytes, bytes});
      sources.push_back(parts.data() + r * bytes);
    }
    exchange(static_cast<const std::byte*>(send), out, parts.data(), in, "reduce_scatter");
    void* to = static_cast<std::byte*>(recv) + bytes_of(begin, dtype);
    reduce_in_order(sources, {&to, 1}, n, dtype, op);
  }
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
  check(x.send_rows[static_cast<size_t>(rank_)] == x.recv_rows[static_cast<size_t>(rank_)],
        "all_to_all_v: rank {0} sends {1} rows to rank {0}, which expects {2}", rank_,
        x.send_rows[static_cast<size_t>(rank_)], x.recv_rows[static_cast<size_t>(rank_)]);
  std::vector<Part> out, in;
  int64_t sent = 0, received = 0;
  for (size_t r = 0; r < n; ++r) {
    out.push_back({sent * x.row_bytes, x.send_rows[r] * x.row_bytes});
    in.push_back({received * x.row_bytes, x.recv_rows[r] * x.row_bytes});
    sent += x.send_rows[r];
    received += x.recv_rows[r];
  }
  exchange(static_cast<const std::byte*>(x.send), out, static_cast<std::byte*>(x.recv), in,
           "all_to_all_v");
}

class MpiSumRequest final : public Request {
 public:
  MpiSumRequest(std::shared_ptr<MpiTransport> transport, std::shared_ptr<MpiSum> sum)
      : transport_(std::move(transport)), sum_(std::move(sum)) {}
  ~MpiSumRequest() override {
    if (!done_ && std::uncaught_exceptions() == 0) try {
        wait();
      } catch (const Error&) {
      }
  }
  bool test() override {
    transport_->progress();
    done_ = sum_->is_finished();
    if (!done_) transport_->context_->check_health(-1, "all_reduce_async");
    return done_;
  }
  void wait() override {
    transport_->wait_until("all_reduce_async", [&] { return done_ || test(); });
  }

 private:
  std::shared_ptr<MpiTransport> transport_;
  std::shared_ptr<MpiSum> sum_;
  bool done_ = false;
};

std::unique_ptr<Request> MpiTransport::all_reduce_async(void* data, int64_t count, DType dtype,
                                                        ReduceOp op) {
  auto sum = std::make_shared<MpiSum>(async_comm_, data, count, dtype, op);
  sums_.push_back(sum);
  context_->add_progress(this);
  progress();
  return std::make_unique<MpiSumRequest>(shared_from_this(), sum);
}

void MpiTransport::progress() {
  // One at a time: the messages of two sums would be taken for each other's.
  while (!sums_.empty() && sums_.front()->advance()) sums_.pop_front();
  if (sums_.empty()) context_->remove_progress(this);
}

}  // namespace adagate
