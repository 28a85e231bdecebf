// The memory that a group of ranks shares: what a rank writes stays on its own board.
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <memory>
#include <string>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "parallel/shared_group.h"
#include "tests/support/catch.h"

using namespace adagate;

namespace {

// Peers that are this process.
class OwnMemory final : public PeerMemory {
 public:
  BufferName name(const void* data) const override { return {0, reinterpret_cast<uint64_t>(data)}; }
  void* map(int, BufferName name) const override { return reinterpret_cast<void*>(name.offset); }
  bool can_copy() const override { return false; }
  int copy_from(int, BufferName, int64_t, void*, int64_t) const override { return 0; }
};

// Peers whose memory is gone.
class GoneMemory final : public PeerMemory {
 public:
  BufferName name(const void* data) const override { return {0, reinterpret_cast<uint64_t>(data)}; }
  void* map(int, BufferName) const override { return nullptr; }
  bool can_copy() const override { return true; }
  int copy_from(int, BufferName, int64_t, void*, int64_t) const override { return ESRCH; }
};

// What a broadcast tells rank 0 whose peer, a process of its own, has shown its buffer and then
// lives on for so long.
std::string failure_beside(int64_t milliseconds) {
  constexpr int64_t kBytes = 128 << 10;
  pid_t peer = fork();
  if (peer == 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
    _exit(0);
  }
  FailureRecord failure;
  RankStatus status[2];
  status[1].note.set("step 7, sums");
  auto context =
      std::make_shared<RankContext>(&failure, status, 2, std::vector<int>{0, 1}, 0, nullptr);
  context->watch_processes({getpid(), peer});
  auto boards = std::make_unique<RankBoard[]>(2);
  boards[1].calls[1] = {Call::broadcast, DType::u8, ReduceOp::sum, 0, 1, kBytes, {}};
  boards[1].arrived.raise(2);
  SharedGroup group(context, boards.get(), {0, 1}, 0, std::make_shared<GoneMemory>(), nullptr);
  std::vector<uint8_t> data(kBytes);
  std::string message;
  try {
    group.broadcast(data.data(), kBytes, DType::u8, 1);
  } catch (const Error& e) {
    message = e.what();
  }
  kill(peer, SIGKILL);
  waitpid(peer, nullptr, 0);
  CHECK(failure.message == message);
  return message;
}

struct GuardedBoard {
  RankBoard board;
  std::byte guard[256] = {};

  bool is_sound() const {
    return std::all_of(std::begin(guard), std::end(guard),
                       [](std::byte b) { return b == std::byte{0}; });
  }
};

}  // namespace

TEST_CASE("shared group: what is just small enough for the board does not run over it") {
  FailureRecord failure;
  RankStatus status[1];
  auto context =
      std::make_shared<RankContext>(&failure, status, 1, std::vector<int>{0}, 0, nullptr);
  auto guarded = std::make_unique<GuardedBoard>();
  SharedGroup group(context, &guarded->board, {0}, 0, std::make_shared<OwnMemory>(), nullptr);
  for (int64_t bytes = RankBoard::kEagerBytes - 20; bytes <= RankBoard::kEagerBytes + 1; ++bytes)
    for (int again = 0; again < 2; ++again) {  // three calls a round: each meets both buffers
      CAPTURE(bytes);
      std::vector<uint8_t> send(static_cast<size_t>(bytes)), recv(send.size());
      for (size_t i = 0; i < send.size(); ++i) send[i] = static_cast<uint8_t>(1 + i % 251);
      std::vector<int64_t> rows{bytes};
      auto arrives = [&](const char* call, auto&& f) {
        INFO(call);
        std::fill(recv.begin(), recv.end(), uint8_t{0});
        REQUIRE(f());
        REQUIRE(guarded->is_sound());
        REQUIRE(recv == send);
      };
      arrives("all_to_all_v", [&] {
        return group.all_to_all_v({send.data(), rows, recv.data(), rows, 1});
      });
      arrives("all_gather",
              [&] { return group.all_gather(send.data(), recv.data(), bytes, DType::u8); });
      arrives("reduce_scatter", [&] {
        return group.reduce_scatter(send.data(), recv.data(), bytes, DType::u8, ReduceOp::sum);
      });
    }
}

TEST_CASE("shared group: a peer that ends while it is read is named, not its memory") {
  CHECK(failure_beside(50) ==
        "rank 1 (last at: step 7, sums) has ended without a word (killed, or out of memory?) while "
        "rank 0 was in broadcast");
  CHECK(failure_beside(60'000) ==
        "rank 0 cannot read 131072 bytes of rank 1 (last at: step 7, sums) in broadcast: No such "
        "process");
}
