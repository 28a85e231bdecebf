#include "parallel/node_link.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <time.h>
#include <utility>

#include "parallel/clock.h"
#include "parallel/watchdog.h"

namespace adagate {
namespace {

// How often the messages of other nodes are looked for: a probe takes about a microsecond.
constexpr int64_t kServeNs = 5'000'000;
constexpr int64_t kShowNs = 1'000'000'000;  // a status is so old at most; less with short timeouts
// A rank that ends waits so long for its last words to be sent.
constexpr int64_t kFlushNs = 500'000'000;
constexpr int kTag = 1;

thread_local NodeLink* t_link = nullptr;

template <size_t N>
void put(char (&to)[N], std::string_view text) {
  size_t bytes = std::min(text.size(), N - 1);
  std::memcpy(to, text.data(), bytes);
  to[bytes] = '\0';
}

// Some signs of life within the bound, however short it is.
int64_t status_period() {
  double bound = collective_timeout();
  return bound > 0 ? std::min(kShowNs, static_cast<int64_t>(bound * 1e9 / 8)) : kShowNs;
}

}  // namespace

NodeLink::NodeLink(MPI_Comm comm, std::vector<int> first_ranks, FailureRecord* failure,
                   RankStatus* status, std::shared_ptr<void> keep_alive)
    : comm_(comm),
      first_ranks_(std::move(first_ranks)),
      failure_(failure),
      status_(status),
      keep_alive_(std::move(keep_alive)) {
  // The link tells of failures: when a node is gone it must go silent, not end this rank too.
  MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
  ADAGATE_MPI(MPI_Comm_rank(comm_, &rank_));
  ADAGATE_MPI(MPI_Comm_size(comm_, &size_));
  for (int r = 0; r < size_; ++r)
    statuses_.push_back(is_first(r) && !is_near(r) ? std::make_unique<Letter>() : nullptr);
  t_link = this;
}

NodeLink::~NodeLink() {
  if (t_link == this) t_link = nullptr;
  int over = 0;
  MPI_Finalized(&over);
  if (over) return;
  flush();
  for (auto* letters : {&statuses_, &others_})
    for (auto& letter : *letters)
      // Who has not received it until now is gone.
      if (letter && letter->request != MPI_REQUEST_NULL) MPI_Request_free(&letter->request);
  MPI_Comm_free(&comm_);
}

bool NodeLink::works(int code) {
  if (code != MPI_SUCCESS) broken_ = true;
  return !broken_;
}

void NodeLink::serve_this_thread() {
  if (t_link) t_link->progress();
}

void NodeLink::progress() {
  int64_t now = now_ns();
  if (now - served_at_ < kServeNs) return;
  served_at_ = now;
  receive();
  if (served_at_ - shown_at_ >= status_period()) send_status();
}

void NodeLink::wait_is_over() {
  if (shown_waiting_) send_status();
}

void NodeLink::receive() {
  while (!broken_) {
    int there = 0, bytes = 0;
    MPI_Status from;
    if (!works(MPI_Iprobe(MPI_ANY_SOURCE, kTag, comm_, &there, &from)) || !there) return;
    LinkMessage message;
    MPI_Get_count(&from, MPI_BYTE, &bytes);
    int most = static_cast<int>(sizeof message);
    if (bytes > most) broken_ = true;  // another program's words
    if (broken_ ||
        !works(MPI_Recv(&message, most, MPI_BYTE, from.MPI_SOURCE, kTag, comm_, MPI_STATUS_IGNORE)))
      return;
    take(message);
  }
}

void NodeLink::take(const LinkMessage& message) {
  if (message.rank < 0 || message.rank >= size_) return;
  if (message.kind == LinkMessage::failure) {
    failure_->claim(message.rank, message.exit_code, message.text);
  } else if (message.kind == LinkMessage::told) {
    failure_->told.store(1);
  } else {
    RankStatus& status = status_[message.rank];
    status.beats.store(message.beats, std::memory_order_relaxed);
    status.waits_in.set(message.waits_in);
    status.note.set(message.text);
  }
}

bool NodeLink::is_sent(Letter& letter) {
  int done = 1;
  if (letter.request != MPI_REQUEST_NULL)
    works(MPI_Test(&letter.request, &done, MPI_STATUS_IGNORE));
  return done != 0;
}

void NodeLink::send(int rank, Letter& letter) {
  if (broken_) return;
  auto bytes = offsetof(LinkMessage, text) + std::strlen(letter.message.text) + 1;
  works(MPI_Isend(&letter.message, static_cast<int>(bytes), MPI_BYTE, rank, kTag, comm_,
                  &letter.request));
}

void NodeLink::send_status() {
  shown_at_ = now_ns();
  const RankStatus& own = status_[rank_];
  LinkMessage now{LinkMessage::status, rank_, 0, own.beats.load(std::memory_order_relaxed)};
  put(now.waits_in, own.waits_in.read());
  put(now.text, own.note.read());
  shown_waiting_ = now.waits_in[0] != '\0';
  for (int r = 0; r < size_; ++r) {
    auto& letter = statuses_[static_cast<size_t>(r)];
    // MPI reads a letter until it is sent. One that is on its way stays as it is; the next takes
    // the newer status.
    if (!letter || broken_ || !is_sent(*letter)) continue;
    LinkMessage& shown = letter->message;
    // Nothing new: silence says that this rank stands still.
    if (shown.beats == now.beats && std::strcmp(shown.waits_in, now.waits_in) == 0) continue;
    shown = now;
    send(r, *letter);
  }
}

void NodeLink::announce_failure() {
  if (std::exchange(announced_, true)) return;
  LinkMessage message{LinkMessage::failure, failure_->rank.load(), failure_->exit_code.load()};
  put(message.text, failure_->message);
  for (int r = 0; r < size_; ++r)
    if (is_first(r) && !is_near(r))
      send(r, *others_.emplace_back(std::make_unique<Letter>(Letter{message})));
}

void NodeLink::announce_told() {
  LinkMessage message{LinkMessage::told, rank_};
  for (int r = 0; r < size_; ++r)
    if (!is_near(r)) send(r, *others_.emplace_back(std::make_unique<Letter>(Letter{message})));
}

void NodeLink::flush() {
  auto all_sent = [&] {
    receive();
    auto sent = [&](auto& letter) { return !letter || is_sent(*letter); };
    return std::all_of(statuses_.begin(), statuses_.end(), sent) &&
           std::all_of(others_.begin(), others_.end(), sent);
  };
  for (int64_t start = now_ns(); !all_sent() && !broken_ && now_ns() - start < kFlushNs;) {
    timespec nap{0, 1'000'000};
    nanosleep(&nap, nullptr);
  }
}

}  // namespace adagate
