#include "parallel/mpi_tasks.h"

#include <algorithm>
#include <cstring>

#include "parallel/bytes.h"
#include "parallel/reduce_kernels.h"

namespace adagate {
namespace {

constexpr int64_t kSmallBytes = 16 << 10;  // sums up to here exchange everything at once
constexpr int64_t kPieceBytes = 1 << 20;   // all ranks' parts of a piece stay in the L2 cache
constexpr int64_t kSliceBytes = 64 << 10;  // but no message is smaller than this
constexpr int64_t kChunkBytes = int64_t{1} << 30;  // MPI counts are int
constexpr int kCollectTag = 1, kSpreadTag = 2, kExchangeTag = 3;

}  // namespace

bool finished(std::vector<MPI_Request>& requests) {
  if (requests.empty()) return true;
  int done = 0;
  ADAGATE_MPI(
      MPI_Testall(static_cast<int>(requests.size()), requests.data(), &done, MPI_STATUSES_IGNORE));
  if (done) requests.clear();
  return done != 0;
}

void start_exchange(MPI_Comm comm, const std::byte* send, const std::vector<MessagePart>& out,
                    std::byte* recv, const std::vector<MessagePart>& in,
                    std::vector<MPI_Request>& requests) {
  int rank, size = static_cast<int>(out.size());
  ADAGATE_MPI(MPI_Comm_rank(comm, &rank));
  auto in_chunks = [](const MessagePart& part, auto&& f) {
    for (int64_t at = 0; at < part.bytes; at += kChunkBytes)
      f(part.offset + at, static_cast<int>(std::min(kChunkBytes, part.bytes - at)));
  };
  // Each rank begins with another partner, so that not all send to the same one at a time. What
  // arrives has its place before anything is sent: nothing is buffered on the way.
  for (int i = 1; i < size; ++i) {
    int from = (rank + size - i) % size, to = (rank + i) % size;
    in_chunks(in[static_cast<size_t>(from)], [&](int64_t offset, int bytes) {
      ADAGATE_MPI(MPI_Irecv(recv + offset, bytes, MPI_BYTE, from, kExchangeTag, comm,
                            &requests.emplace_back()));
    });
    in_chunks(out[static_cast<size_t>(to)], [&](int64_t offset, int bytes) {
      ADAGATE_MPI(MPI_Isend(send + offset, bytes, MPI_BYTE, to, kExchangeTag, comm,
                            &requests.emplace_back()));
    });
  }
  auto own = static_cast<size_t>(rank);
  copy_bytes(recv + in[own].offset, send + out[own].offset, out[own].bytes);
}

MpiTask::MpiTask(MPI_Comm comm) : comm_(comm) {
  ADAGATE_MPI(MPI_Comm_rank(comm, &rank_));
  ADAGATE_MPI(MPI_Comm_size(comm, &size_));
}

MpiSum::MpiSum(MPI_Comm comm, void* data, int64_t count, DType dtype, ReduceOp op)
    : MpiTask(comm), data_(static_cast<std::byte*>(data)), count_(count), dtype_(dtype), op_(op) {
  piece_ = std::max(kPieceBytes, kSliceBytes * size_) / bytes_of(1, dtype);
}

bool MpiSum::step() {
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

// Everybody gets all parts and sums them: one trip of messages in place of two, which is what
// counts in a short message.
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
  // Each rank sums one slice of the piece, for all.
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
  // In the order of ranks, whatever arrived first: the sum is the same to the bit in every run and
  // with every transport.
  std::vector<const void*> sources;
  for (int r = 0; r < size_; ++r) sources.push_back(parts + r * bytes_of(part_count, dtype_));
  void* destination = to;
  reduce_in_order(sources, {&destination, 1}, part_count, dtype_, op_);
}

MpiGather::MpiGather(MPI_Comm comm, const void* send, void* recv, std::vector<int64_t> starts)
    : MpiTask(comm),
      send_(static_cast<const std::byte*>(send)),
      recv_(static_cast<std::byte*>(recv)),
      starts_(std::move(starts)) {}

bool MpiGather::step() {
  if (!started_) {
    started_ = true;
    auto part = [&](int r) {
      auto i = static_cast<size_t>(r);
      return MessagePart{starts_[i], starts_[i + 1] - starts_[i]};
    };
    std::vector<MessagePart> out(static_cast<size_t>(size_), {0, part(rank_).bytes}), in;
    for (int r = 0; r < size_; ++r) in.push_back(part(r));
    start_exchange(comm_, send_, out, recv_, in, requests_);
  }
  return finished(requests_);
}

MpiScatter::MpiScatter(MPI_Comm comm, const void* send, void* recv, std::vector<int64_t> starts,
                       DType dtype, ReduceOp op)
    : MpiTask(comm),
      send_(static_cast<const std::byte*>(send)),
      recv_(static_cast<std::byte*>(recv)),
      starts_(std::move(starts)),
      dtype_(dtype),
      op_(op) {
  piece_ = std::max(kPieceBytes / size_, kSliceBytes) / bytes_of(1, dtype);
  for (size_t r = 0; r + 1 < starts_.size(); ++r)
    longest_ = std::max(longest_, starts_[r + 1] - starts_[r]);
}

bool MpiScatter::step() {
  // As far as messages are there; the rest when progress is made next.
  while (finished(requests_)) {
    if (collecting_) combine_piece();
    if (next_ >= longest_) return true;
    start_piece();
  }
  return false;
}

int64_t MpiScatter::count_of(int r) const {
  auto i = static_cast<size_t>(r);
  return std::clamp(starts_[i + 1] - starts_[i] - begin_, int64_t{0}, piece_);
}

void MpiScatter::start_piece() {
  begin_ = next_;
  next_ += piece_;
  collecting_ = true;
  int64_t own_bytes = bytes_of(count_of(rank_), dtype_);
  parts_.resize(static_cast<size_t>(own_bytes * size_));
  std::vector<MessagePart> out, in;
  for (int r = 0; r < size_; ++r) {
    out.push_back({bytes_of(starts_[static_cast<size_t>(r)] + begin_, dtype_),
                   bytes_of(count_of(r), dtype_)});
    in.push_back({r * own_bytes, own_bytes});
  }
  start_exchange(comm_, send_, out, parts_.data(), in, requests_);
}

void MpiScatter::combine_piece() {
  std::vector<const void*> sources;
  int64_t own_bytes = bytes_of(count_of(rank_), dtype_);
  for (int r = 0; r < size_; ++r) sources.push_back(parts_.data() + r * own_bytes);
  void* to = recv_ + bytes_of(begin_, dtype_);
  reduce_in_order(sources, {&to, 1}, count_of(rank_), dtype_, op_);
}

}  // namespace adagate
