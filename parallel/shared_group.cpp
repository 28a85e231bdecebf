#include "parallel/shared_group.h"

#include <algorithm>

#include "core/base/error.h"
#include "parallel/bytes.h"
#include "parallel/reduce_kernels.h"

namespace adagate {
namespace {

// Piece in which buffers that are not mapped are copied and summed: stays in the L2 cache.
constexpr int64_t kPieceBytes = 128 << 10;

std::string text_of(const CallRecord& r) {
  if (r.call == Call::barrier) return "barrier";
  if (r.call == Call::all_to_all_v) return fmt::format("all_to_all_v of {}-byte rows", r.count);
  std::string text = fmt::format("{} of {} {}", name_of_call(r.call), r.count, name_of(r.dtype));
  if (r.call == Call::broadcast) text += fmt::format(" from root {}", r.root);
  return text;
}

}  // namespace

SharedGroup::SharedGroup(std::shared_ptr<RankContext> context, RankBoard* boards,
                         std::vector<int> members, int rank, std::shared_ptr<PeerMemory> memory,
                         std::shared_ptr<void> keep_alive)
    : context_(std::move(context)),
      boards_(boards),
      members_(std::move(members)),
      rank_(rank),
      memory_(std::move(memory)),
      keep_alive_(std::move(keep_alive)) {}

SharedGroup::~SharedGroup() {
  context_->remove_progress(this);
}

CallRecord SharedGroup::describe(Call call, const void* data, int64_t count, DType dtype,
                                 ReduceOp op, int root) const {
  return {call, dtype, op, 0, root, count, memory_->name(data)};
}

void SharedGroup::wait_all(Signal RankBoard::*signal, uint32_t target, Call call) {
  // Each rank begins with its neighbour: not all read the same line at once.
  for (int i = 1; i < size(); ++i) {
    int r = (rank_ + i) % size();
    context_->wait(board(r).*signal, target, member(r), name_of_call(call));
  }
}

void SharedGroup::compare(const CallRecord& mine, const CallRecord& theirs, int r) const {
  check(mine.agrees_with(theirs),
        "ranks disagree about a collective: rank {} calls {}, rank {} calls {}",
        context_->world_rank(member(rank_)), text_of(mine), context_->world_rank(member(r)),
        text_of(theirs));
}

void SharedGroup::meet(const CallRecord& record) {
  context_->own_status().beat();
  // Two records in turn: a fast rank may be in the next call while others still compare this one.
  own().calls[meetings_ & 1] = record;
  own().arrived.raise(++points_);
  wait_all(&RankBoard::arrived, points_, record.call);
  for (int r = 0; r < size(); ++r) compare(record, current(r), r);
}

void SharedGroup::leave() {
  Call call = current(rank_).call;
  own().arrived.raise(++points_);
  wait_all(&RankBoard::arrived, points_, call);
}

SharedGroup::Buffers SharedGroup::buffers_of_call() const {
  Buffers buffers{current(rank_)};
  for (int r = 0; r < size(); ++r) add_buffer(buffers, current(r).buffer, false);
  return buffers;
}

void SharedGroup::add_buffer(Buffers& buffers, BufferName name, bool empty) const {
  auto r = static_cast<int>(buffers.names.size());
  void* address = memory_->map(member(r), name);
  buffers.names.push_back(name);
  buffers.addresses.push_back(address);
  buffers.all_mapped &= address || empty;
}

void SharedGroup::copy_from(int r, BufferName buffer, Call call, int64_t offset, void* to,
                            int64_t bytes) {
  int error = memory_->copy_from(member(r), buffer, offset, to, bytes);
  if (error != 0) context_->fail_unreadable(member(r), name_of_call(call), bytes, error);
}

void SharedGroup::barrier() {
  if (size() == 1) return;
  ++meetings_;
  meet({});
}

void SharedGroup::sum_mapped(const Buffers& buffers) {
  const CallRecord& call = buffers.call;
  // Each rank sums its slice of all buffers and writes the sum into all of them: every byte is read
  // once and written once per rank.
  auto [first, last] = slice_of(call.count, rank_, size());
  int64_t offset = bytes_of(first, call.dtype);
  std::vector<void*> parts;
  for (void* b : buffers.addresses) parts.push_back(static_cast<std::byte*>(b) + offset);
  sources_.assign(parts.begin(), parts.end());
  BusyScope busy(*context_, name_of_call(call.call));
  reduce_in_order(sources_, parts, last - first, call.dtype, call.op);
}

void SharedGroup::combine(const Buffers& buffers, const std::byte* own_data, int64_t first,
                          int64_t count, std::byte* to) {
  const CallRecord& call = buffers.call;
  if (!buffers.all_mapped) return combine_copied(buffers, own_data, first, count, to);
  int64_t offset = bytes_of(first, call.dtype);
  sources_.clear();
  for (void* b : buffers.addresses) sources_.push_back(static_cast<std::byte*>(b) + offset);
  void* destination = to;
  BusyScope busy(*context_, name_of_call(call.call));
  reduce_in_order(sources_, {&destination, 1}, count, call.dtype, call.op);
}

void SharedGroup::combine_copied(const Buffers& buffers, const std::byte* own_data, int64_t first,
                                 int64_t count, std::byte* to) {
  const CallRecord& call = buffers.call;
  int64_t piece = kPieceBytes / bytes_of(1, call.dtype);
  scratch_.resize(static_cast<size_t>(kPieceBytes * size()));
  BusyScope busy(*context_, name_of_call(call.call));
  for (int64_t begin = first; begin < first + count; begin += piece) {
    int64_t n = std::min(piece, first + count - begin);
    int64_t offset = bytes_of(begin, call.dtype), bytes = bytes_of(n, call.dtype);
    sources_.clear();
    for (int r = 0; r < size(); ++r) {
      std::byte* part = scratch_.data() + r * kPieceBytes;
      if (r != rank_)
        copy_from(r, buffers.names[static_cast<size_t>(r)], call.call, offset, part, bytes);
      sources_.push_back(r == rank_ ? own_data + offset : part);
    }
    void* destination = to + bytes_of(begin - first, call.dtype);
    reduce_in_order(sources_, {&destination, 1}, n, call.dtype, call.op);
  }
}

void SharedGroup::sum_copied(const Buffers& buffers, std::byte* data) {
  const CallRecord& call = buffers.call;
  auto [first, last] = slice_of(call.count, rank_, size());
  // In place: the others read only their own slices of this buffer until all have met.
  combine_copied(buffers, data, first, last - first, data + bytes_of(first, call.dtype));
  leave();
  BusyScope busy(*context_, name_of_call(call.call));
  for (int i = 1; i < size(); ++i) {
    int r = (rank_ + i) % size();
    auto [begin, end] = slice_of(call.count, r, size());
    int64_t offset = bytes_of(begin, call.dtype);
    copy_from(r, buffers.names[static_cast<size_t>(r)], call.call, offset, data + offset,
              bytes_of(end - begin, call.dtype));
  }
}

void SharedGroup::gather(const Buffers& buffers, const void* own_data,
                         std::span<const int64_t> starts, std::byte* to) {
  BusyScope busy(*context_, name_of_call(buffers.call.call));
  for (int i = 0; i < size(); ++i) {
    int r = (rank_ + i) % size();
    auto source = static_cast<size_t>(r);
    int64_t bytes = starts[source + 1] - starts[source];
    std::byte* arrives = to + starts[source];
    if (r == rank_)
      copy_bytes(arrives, own_data, bytes);
    else if (buffers.all_mapped)
      copy_bytes(arrives, buffers.addresses[source], bytes);
    else if (bytes > 0)
      copy_from(r, buffers.names[source], buffers.call.call, 0, arrives, bytes);
  }
}

bool SharedGroup::all_reduce(void* data, int64_t count, DType dtype, ReduceOp op) {
  if (size() == 1) return true;
  ++meetings_;
  CallRecord record = describe(Call::all_reduce, data, count, dtype, op, 0);
  int64_t bytes = bytes_of(count, dtype);
  if (bytes <= RankBoard::kEagerBytes) {
    // Everyone sums all parts: no second meeting.
    copy_bytes(eager_buffer(rank_), data, bytes);
    meet(record);
    sources_.clear();
    for (int r = 0; r < size(); ++r) sources_.push_back(eager_buffer(r));
    reduce_in_order(sources_, {&data, 1}, count, dtype, op);
    return true;
  }
  meet(record);
  Buffers buffers = buffers_of_call();
  if (!reaches(buffers)) return false;
  if (buffers.all_mapped)
    sum_mapped(buffers);
  else
    sum_copied(buffers, static_cast<std::byte*>(data));
  leave();
  return true;
}

bool SharedGroup::all_gather(const void* send, void* recv, int64_t count, DType dtype) {
  int64_t bytes = bytes_of(count, dtype);
  auto* to = static_cast<std::byte*>(recv);
  ++meetings_;
  CallRecord record = describe(Call::all_gather, send, count, dtype, ReduceOp::sum, 0);
  if (bytes <= RankBoard::kEagerBytes) {
    copy_bytes(eager_buffer(rank_), send, bytes);
    meet(record);
    for (int r = 0; r < size(); ++r) copy_bytes(to + r * bytes, eager_buffer(r), bytes);
    return true;
  }
  meet(record);
  Buffers buffers = buffers_of_call();
  if (!reaches(buffers)) return false;
  std::vector<int64_t> starts;
  for (int r = 0; r <= size(); ++r) starts.push_back(r * bytes);
  gather(buffers, send, starts, to);
  leave();
  return true;
}

bool SharedGroup::reduce_scatter(const void* send, void* recv, int64_t count, DType dtype,
                                 ReduceOp op) {
  int64_t bytes = bytes_of(count, dtype);
  ++meetings_;
  CallRecord record = describe(Call::reduce_scatter, send, count, dtype, op, 0);
  if (bytes * size() <= RankBoard::kEagerBytes) {
    copy_bytes(eager_buffer(rank_), send, bytes * size());
    meet(record);
    sources_.clear();
    for (int r = 0; r < size(); ++r) sources_.push_back(eager_buffer(r) + rank_ * bytes);
    reduce_in_order(sources_, {&recv, 1}, count, dtype, op);
    return true;
  }
  meet(record);
  Buffers buffers = buffers_of_call();
  if (!reaches(buffers)) return false;
  combine(buffers, static_cast<const std::byte*>(send), rank_ * count, count,
          static_cast<std::byte*>(recv));
  leave();
  return true;
}

bool SharedGroup::broadcast(void* data, int64_t count, DType dtype, int root) {
  check(root >= 0 && root < size(), "broadcast: root {} in a group of {} ranks", root, size());
  if (size() == 1) return true;
  int64_t bytes = bytes_of(count, dtype);
  ++meetings_;
  CallRecord record = describe(Call::broadcast, data, count, dtype, ReduceOp::sum, root);
  if (bytes <= RankBoard::kEagerBytes) {
    if (rank_ == root) copy_bytes(eager_buffer(rank_), data, bytes);
    meet(record);
    if (rank_ != root) copy_bytes(data, eager_buffer(root), bytes);
    return true;
  }
  meet(record);
  Buffers buffers = buffers_of_call();
  if (!reaches(buffers)) return false;
  if (rank_ != root) {
    BusyScope busy(*context_, name_of_call(record.call));
    if (buffers.all_mapped)
      copy_bytes(data, buffers.addresses[static_cast<size_t>(root)], bytes);
    else
      copy_from(root, current(root).buffer, record.call, 0, data, bytes);
  }
  leave();
  return true;
}

// Row offsets of what goes to each rank, and the total, lie at the head of the eager buffer; the
// rows follow them if they fit.
bool SharedGroup::all_to_all_v(const AllToAllV& x) {
  auto n = static_cast<size_t>(size());
  check(x.send_rows.size() == n && x.recv_rows.size() == n,
        "all_to_all_v: {} send and {} receive counts in a group of {} ranks", x.send_rows.size(),
        x.recv_rows.size(), n);
  auto head = static_cast<int64_t>((n + 1) * sizeof(int64_t));
  check(head <= RankBoard::kEagerBytes, "all_to_all_v: {} ranks are too many for one node", n);
  ++meetings_;
  CallRecord record =
      describe(Call::all_to_all_v, x.send, x.row_bytes, DType::u8, ReduceOp::sum, 0);
  auto* offsets = reinterpret_cast<int64_t*>(eager_buffer(rank_));
  offsets[0] = 0;
  for (size_t r = 0; r < n; ++r) offsets[r + 1] = offsets[r] + x.send_rows[r];
  int64_t total = offsets[n] * x.row_bytes;
  record.eager = head + total <= RankBoard::kEagerBytes;
  if (record.eager) copy_bytes(eager_buffer(rank_) + head, x.send, total);
  meet(record);

  bool all_eager = true, reachable = true;
  std::vector<const std::byte*> from;
  for (int r = 0; r < size(); ++r) {
    const CallRecord& theirs = current(r);
    all_eager &= theirs.eager != 0;
    const void* data =
        theirs.eager ? eager_buffer(r) + head : memory_->map(member(r), theirs.buffer);
    from.push_back(static_cast<const std::byte*>(data));
    reachable &= data != nullptr;
  }
  if (!reachable && !memory_->can_copy()) return false;
  std::string disagreement = pull_rows(x, from);
  // The others may still read from this rank: only after that may it throw.
  if (!all_eager) leave();
  check(disagreement.empty(), "{}", disagreement);
  return true;
}

std::string SharedGroup::pull_rows(const AllToAllV& x, std::span<const std::byte* const> from) {
  BusyScope busy(*context_, name_of_call(Call::all_to_all_v));
  std::vector<int64_t> starts(from.size() + 1, 0);  // first row of each source in recv
  for (size_t r = 0; r < from.size(); ++r) starts[r + 1] = starts[r] + x.recv_rows[r];
  std::string disagreement;
  for (int i = 0; i < size(); ++i) {
    int r = (rank_ + i) % size();
    auto source = static_cast<size_t>(r);
    const auto* theirs = reinterpret_cast<const int64_t*>(eager_buffer(r));
    int64_t rows = theirs[rank_ + 1] - theirs[rank_];
    if (rows != x.recv_rows[source]) {
      disagreement = fmt::format("all_to_all_v: rank {} sends {} rows to rank {}, which expects {}",
                                 context_->world_rank(member(r)), rows,
                                 context_->world_rank(member(rank_)), x.recv_rows[source]);
      continue;
    }
    auto* to = static_cast<std::byte*>(x.recv) + starts[source] * x.row_bytes;
    int64_t offset = theirs[rank_] * x.row_bytes, bytes = rows * x.row_bytes;
    if (r == rank_)
      copy_bytes(to, static_cast<const std::byte*>(x.send) + offset, bytes);
    else if (from[source])
      copy_bytes(to, from[source] + offset, bytes);
    else if (bytes > 0)
      copy_from(r, current(r).buffer, Call::all_to_all_v, offset, to, bytes);
  }
  return disagreement;
}

}  // namespace adagate
