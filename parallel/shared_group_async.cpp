// The asynchronous calls of a SharedGroup.
#include <algorithm>
#include <exception>

#include "core/base/error.h"
#include "parallel/bytes.h"
#include "parallel/finished_request.h"
#include "parallel/shared_group.h"

namespace adagate {

class PostedRequest final : public Request {
 public:
  PostedRequest(std::shared_ptr<SharedGroup> group, std::shared_ptr<SharedGroup::Post> post)
      : group_(std::move(group)), post_(std::move(post)) {}
  // The peers use the buffers until the call is finished, wanted or not.
  ~PostedRequest() override {
    if (done_) return;
    try {
      if (std::uncaught_exceptions() > 0)
        group_->context_->retreat(fmt::format("it gave up in the middle of an {}", call()));
      else
        wait();
    } catch (const Error&) {
    }
  }
  bool test() override {
    if (!done_) done_ = group_->is_done(*post_) && (!post_->elsewhere || post_->elsewhere->test());
    return done_;
  }
  void wait() override {
    if (!done_) group_->wait_for(post_->number, post_->record.call);
    if (!done_ && post_->elsewhere) post_->elsewhere->wait();
    done_ = true;
  }

 private:
  const char* call() const { return name_of_call(post_->record.call); }

  std::shared_ptr<SharedGroup> group_;
  std::shared_ptr<SharedGroup::Post> post_;
  bool done_ = false;
};

std::unique_ptr<Request> SharedGroup::all_reduce_async(void* data, int64_t count, DType dtype,
                                                       ReduceOp op, Otherwise otherwise) {
  Post post{.record = describe(Call::all_reduce_async, data, count, dtype, op, 0)};
  post.otherwise = std::move(otherwise);
  return start(std::move(post));
}

std::unique_ptr<Request> SharedGroup::all_gather_async(const void* send, void* recv,
                                                       std::vector<int64_t> starts, DType dtype,
                                                       Otherwise otherwise) {
  Post post{
      .record = describe(Call::all_gather_async, send, starts.back(), dtype, ReduceOp::sum, 0),
      .send = static_cast<const std::byte*>(send),
      .recv = static_cast<std::byte*>(recv),
      .starts = std::move(starts),
      .otherwise = std::move(otherwise)};
  return start(std::move(post));
}

std::unique_ptr<Request> SharedGroup::reduce_scatter_async(const void* send, void* recv,
                                                           std::vector<int64_t> starts, DType dtype,
                                                           ReduceOp op, Otherwise otherwise) {
  Post post{.record = describe(Call::reduce_scatter_async, send, starts.back(), dtype, op, 0),
            .send = static_cast<const std::byte*>(send),
            .recv = static_cast<std::byte*>(recv),
            .starts = std::move(starts),
            .otherwise = std::move(otherwise)};
  return start(std::move(post));
}

std::unique_ptr<Request> SharedGroup::start(Post started) {
  auto post = std::make_shared<Post>(std::move(started));
  if (!post->starts.empty()) {
    auto own_part = static_cast<size_t>(rank_);
    post->record.part = post->starts[own_part + 1] - post->starts[own_part];
  }
  if (size() == 1) {
    copy_bytes(post->recv, post->send, bytes_of(post->record.part, post->record.dtype));
    return std::make_unique<FinishedRequest>();
  }
  // A slot of the ring is free again when all ranks have done their share of what it held.
  if (posts_ >= RankBoard::kAsyncDepth)
    wait_for(posts_ - RankBoard::kAsyncDepth + 1, post->record.call);
  own().posts[posts_ % RankBoard::kAsyncDepth] = post->record;
  post->number = ++posts_;
  to_do_.push_back(post);
  context_->add_progress(this);
  own().posted.raise(post->number);
  auto request = std::make_unique<PostedRequest>(shared_from_this(), std::move(post));
  context_->progress();
  return request;
}

void SharedGroup::compare_parts(const Post& mine, const CallRecord& theirs, int r) const {
  if (mine.starts.empty()) return;
  auto part = static_cast<size_t>(r);
  int64_t expected = mine.starts[part + 1] - mine.starts[part];
  check(theirs.part == expected,
        "ranks disagree about a collective: the part of rank {0} in {1} has {2} elements for rank "
        "{0}, {3} for rank {4}",
        context_->world_rank(member(r)), name_of_call(mine.record.call), theirs.part, expected,
        context_->world_rank(member(rank_)));
}

SharedGroup::Buffers SharedGroup::buffers_of(const Post& post) {
  Buffers buffers{post.record};
  bool gathers = post.record.call == Call::all_gather_async;
  for (int r = 0; r < size(); ++r) {
    const CallRecord& theirs = board(r).posts[(post.number - 1) % RankBoard::kAsyncDepth];
    compare(post.record, theirs, r);
    compare_parts(post, theirs, r);
    add_buffer(buffers, theirs.buffer, (gathers ? theirs.part : theirs.count) == 0);
  }
  return buffers;
}

void SharedGroup::do_share(Post& post) {
  Buffers buffers = buffers_of(post);
  // Sums write to the peers' memory, which copying can't.
  bool sums = post.record.call == Call::all_reduce_async;
  if (sums ? !buffers.all_mapped : !reaches(buffers)) {
    // Memory that only some ranks share would be seen by these alone: no way for all.
    for (int r = 0; r < size(); ++r) {
      auto i = static_cast<size_t>(r);
      check(buffers.addresses[i] || buffers.names[i].segment == 0,
            "{}: the buffer of rank {} is not in memory that all ranks of the group share",
            name_of_call(post.record.call), context_->world_rank(member(r)));
    }
    post.elsewhere = post.otherwise();
    return;
  }
  if (sums) return sum_mapped(buffers);
  auto own_part = static_cast<size_t>(rank_);
  if (post.record.call == Call::reduce_scatter_async)
    return combine(buffers, post.send, post.starts[own_part], post.record.part, post.recv);
  std::vector<int64_t> starts = post.starts;
  for (int64_t& start : starts) start = bytes_of(start, post.record.dtype);
  gather(buffers, post.send, starts, post.recv);
}

void SharedGroup::progress() {
  while (!to_do_.empty()) {
    uint32_t number = to_do_.front()->number;
    for (int r = 0; r < size(); ++r)
      if (!board(r).posted.reached(number)) return;
    std::shared_ptr<Post> post = std::move(to_do_.front());
    to_do_.pop_front();
    do_share(*post);
    own().done.raise(number);
  }
  context_->remove_progress(this);
}

bool SharedGroup::is_done(const Post& post) {
  context_->progress();
  for (int r = 0; r < size(); ++r) {
    if (board(r).done.reached(post.number)) continue;
    context_->check_health(-1, name_of_call(post.record.call));
    return false;
  }
  return true;
}

void SharedGroup::wait_for(uint32_t number, Call call) {
  if (!own().done.reached(number)) {
    wait_all(&RankBoard::posted, number, call);
    progress();
  }
  wait_all(&RankBoard::done, number, call);
}

}  // namespace adagate
