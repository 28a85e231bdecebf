#include "parallel/shared_group.h"

#include <algorithm>
#include <cstring>
#include <exception>

#include "core/base/error.h"
#include "parallel/finished_request.h"
#include "parallel/reduce_kernels.h"

namespace adagate {
namespace {

// Piece in which buffers that are not mapped are copied and summed: stays in the L2 cache.
constexpr int64_t kPieceBytes = 128 << 10;

void copy_bytes(void* to, const void* from, int64_t bytes) {
  if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
}

int64_t bytes_of(int64_t count, DType dtype) {
  return count * static_cast<int64_t>(size_of(dtype));
}

const char* name_of_call(Call call) {
  return kCallNames[static_cast<size_t>(call)];
}

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

std::vector<void*> SharedGroup::map_all() const {
  std::vector<void*> buffers;
  for (int r = 0; r < size(); ++r) {
    buffers.push_back(memory_->map(member(r), current(r).buffer));
    if (!buffers.back()) return {};
  }
  return buffers;
}

void SharedGroup::copy_from(int r, int64_t offset, void* to, int64_t bytes) {
  const CallRecord& theirs = current(r);
  int error = memory_->copy_from(member(r), theirs.buffer, offset, to, bytes);
  if (error != 0) context_->fail_unreadable(member(r), name_of_call(theirs.call), bytes, error);
}

void SharedGroup::barrier() {
  if (size() == 1) return;
  ++meetings_;
  meet({});
}

void SharedGroup::sum_mapped(std::span<void* const> buffers, int64_t count, DType dtype,
                             ReduceOp op) {
  auto [first, last] = slice_of(count, rank_, size());
  int64_t offset = bytes_of(first, dtype);
  std::vector<void*> parts;
  for (void* b : buffers) parts.push_back(static_cast<std::byte*>(b) + offset);
  sources_.assign(parts.begin(), parts.end());
  BusyScope busy(*context_, name_of_call(Call::all_reduce));
  reduce_in_order(sources_, parts, last - first, dtype, op);
}

void SharedGroup::combine_copied(const std::byte* own_data, int64_t first, int64_t count,
                                 DType dtype, ReduceOp op, std::byte* to) {
  int64_t piece = kPieceBytes / static_cast<int64_t>(size_of(dtype));
  scratch_.resize(static_cast<size_t>(kPieceBytes * size()));
  BusyScope busy(*context_, name_of_call(Call::all_reduce));
  for (int64_t begin = first; begin < first + count; begin += piece) {
    int64_t n = std::min(piece, first + count - begin);
    int64_t offset = bytes_of(begin, dtype);
    sources_.clear();
    for (int r = 0; r < size(); ++r) {
      std::byte* part = scratch_.data() + r * kPieceBytes;
      if (r != rank_) copy_from(r, offset, part, bytes_of(n, dtype));
      sources_.push_back(r == rank_ ? own_data + offset : part);
    }
    void* destination = to + bytes_of(begin - first, dtype);
    reduce_in_order(sources_, {&destination, 1}, n, dtype, op);
  }
}

void SharedGroup::sum_copied(std::byte* data, int64_t count, DType dtype, ReduceOp op) {
  auto [first, last] = slice_of(count, rank_, size());
  combine_copied(data, first, last - first, dtype, op, data + bytes_of(first, dtype));
  leave();
  BusyScope busy(*context_, name_of_call(Call::all_reduce));
  for (int i = 1; i < size(); ++i) {
    int r = (rank_ + i) % size();
    auto [begin, end] = slice_of(count, r, size());
    int64_t offset = bytes_of(begin, dtype);
    copy_from(r, offset, data + offset, bytes_of(end - begin, dtype));
  }
}

bool SharedGroup::all_reduce(void* data, int64_t count, DType dtype, ReduceOp op) {
  if (size() == 1) return true;
  ++meetings_;
  CallRecord record = describe(Call::all_reduce, data, count, dtype, op, 0);
  int64_t bytes = bytes_of(count, dtype);
  if (bytes <= RankBoard::kEagerBytes) {
    copy_bytes(eager_buffer(rank_), data, bytes);
    meet(record);
    sources_.clear();
    for (int r = 0; r < size(); ++r) sources_.push_back(eager_buffer(r));
    reduce_in_order(sources_, {&data, 1}, count, dtype, op);
    return true;
  }
  meet(record);
  if (auto buffers = map_all(); !buffers.empty())
    sum_mapped(buffers, count, dtype, op);
  else if (memory_->can_copy())
    sum_copied(static_cast<std::byte*>(data), count, dtype, op);
  else
    return false;
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
  auto buffers = map_all();
  if (buffers.empty() && !memory_->can_copy()) return false;
  {
    BusyScope busy(*context_, name_of_call(record.call));
    for (int i = 0; i < size(); ++i) {
      int r = (rank_ + i) % size();
      if (r == rank_)
        copy_bytes(to + r * bytes, send, bytes);
      else if (!buffers.empty())
        copy_bytes(to + r * bytes, buffers[static_cast<size_t>(r)], bytes);
      else
        copy_from(r, 0, to + r * bytes, bytes);
    }
  }
  leave();
  return true;
}

bool SharedGroup::reduce_scatter(const void* send, void* recv, int64_t count, DType dtype,
                                 ReduceOp op) {
  int64_t bytes = bytes_of(count, dtype);
  ++meetings_;
  CallRecord record = describe(Call::reduce_scatter, send, count, dtype, op, 0);
  sources_.clear();
  if (bytes * size() <= RankBoard::kEagerBytes) {
    copy_bytes(eager_buffer(rank_), send, bytes * size());
    meet(record);
    for (int r = 0; r < size(); ++r) sources_.push_back(eager_buffer(r) + rank_ * bytes);
    reduce_in_order(sources_, {&recv, 1}, count, dtype, op);
    return true;
  }
  meet(record);
  if (auto buffers = map_all(); !buffers.empty()) {
    for (void* b : buffers) sources_.push_back(static_cast<std::byte*>(b) + rank_ * bytes);
    BusyScope busy(*context_, name_of_call(record.call));
    reduce_in_order(sources_, {&recv, 1}, count, dtype, op);
  } else if (memory_->can_copy()) {
    combine_copied(static_cast<const std::byte*>(send), rank_ * count, count, dtype, op,
                   static_cast<std::byte*>(recv));
  } else {
    return false;
  }
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
  auto buffers = map_all();
  if (buffers.empty() && !memory_->can_copy()) return false;
  if (rank_ != root) {
    BusyScope busy(*context_, name_of_call(record.call));
    if (!buffers.empty())
      copy_bytes(data, buffers[static_cast<size_t>(root)], bytes);
    else
      copy_from(root, 0, data, bytes);
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
      copy_from(r, offset, to, bytes);
  }
  return disagreement;
}

namespace {

class SharedSum final : public Request {
 public:
  SharedSum(std::shared_ptr<SharedGroup> group, uint32_t sequence)
      : group_(std::move(group)), sequence_(sequence) {}
  // The peers write into the buffer until the sum is finished, wanted or not.
  ~SharedSum() override {
    if (done_) return;
    try {
      if (std::uncaught_exceptions() > 0)
        group_->context().retreat("it gave up in the middle of an all_reduce_async");
      else
        wait();
    } catch (const Error&) {
    }
  }
  bool test() override {
    if (!done_) done_ = group_->async_done(sequence_);
    return done_;
  }
  void wait() override {
    if (!done_) group_->async_wait(sequence_);
    done_ = true;
  }

 private:
  std::shared_ptr<SharedGroup> group_;
  uint32_t sequence_;
  bool done_ = false;
};

}  // namespace

std::unique_ptr<Request> SharedGroup::all_reduce_async(void* data, int64_t count, DType dtype,
                                                       ReduceOp op) {
  if (size() == 1) return std::make_unique<FinishedRequest>();
  CallRecord record = describe(Call::all_reduce_async, data, count, dtype, op, 0);
  if (!memory_->map(member(rank_), record.buffer)) return nullptr;
  wait_for_ring();
  own().posts[posts_ % RankBoard::kAsyncDepth] = record;
  to_sum_.push_back({posts_, record});
  context_->add_progress(this);
  own().posted.raise(++posts_);
  context_->progress();
  return std::make_unique<SharedSum>(shared_from_this(), posts_);
}

// A slot of the ring is free again when all ranks have summed the post that it held.
void SharedGroup::wait_for_ring() {
  uint32_t oldest = posts_ - RankBoard::kAsyncDepth + 1;
  if (posts_ >= RankBoard::kAsyncDepth) async_wait(oldest);
}

void SharedGroup::sum_posted(const Posted& posted) {
  std::vector<void*> buffers;
  for (int r = 0; r < size(); ++r) {
    const CallRecord& theirs = board(r).posts[posted.sequence % RankBoard::kAsyncDepth];
    compare(posted.record, theirs, r);
    buffers.push_back(memory_->map(member(r), theirs.buffer));
    check(buffers.back(), "all_reduce_async: the buffer of rank {} is not in shared memory",
          context_->world_rank(member(r)));
  }
  const CallRecord& mine = posted.record;
  sum_mapped(buffers, mine.count, mine.dtype, mine.op);
}

void SharedGroup::progress() {
  while (!to_sum_.empty()) {
    uint32_t target = to_sum_.front().sequence + 1;
    for (int r = 0; r < size(); ++r)
      if (!board(r).posted.reached(target)) return;
    Posted posted = to_sum_.front();
    to_sum_.pop_front();
    sum_posted(posted);
    own().summed.raise(target);
  }
  context_->remove_progress(this);
}

bool SharedGroup::async_done(uint32_t sequence) {
  context_->progress();
  for (int r = 0; r < size(); ++r) {
    if (board(r).summed.reached(sequence)) continue;
    context_->check_health(-1, name_of_call(Call::all_reduce_async));
    return false;
  }
  return true;
}

void SharedGroup::async_wait(uint32_t sequence) {
  if (!own().summed.reached(sequence)) {
    wait_all(&RankBoard::posted, sequence, Call::all_reduce_async);
    progress();
  }
  wait_all(&RankBoard::summed, sequence, Call::all_reduce_async);
}

}  // namespace adagate
