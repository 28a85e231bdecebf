// The communicator suite on one rank and on thread ranks, and what threads do when one of them
// fails.
#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "core/base/error.h"
#include "core/base/heartbeat.h"
#include "parallel/agree.h"
#include "parallel/mesh.h"
#include "parallel/rank_context.h"
#include "parallel/thread_communicator.h"
#include "parallel/watchdog.h"
#include "tests/parallel/communicator_suite.h"
#include "tests/support/catch.h"

using namespace adagate;
using Catch::Contains;

namespace {

double seconds_of(const std::function<void()>& body) {
  auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The message of the Error that `body` throws on some rank of `ranks`; must come within 5 s.
std::string failure_of(int ranks, const std::function<void(std::shared_ptr<Communicator>)>& body) {
  std::string message;
  double took = seconds_of([&] {
    try {
      run_ranks(ranks, body);
    } catch (const Error& e) {
      message = e.what();
    }
  });
  CHECK(took < 5.0);
  return message;
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("self communicator: counts and roots that cannot be are refused") {
  auto self = make_self_communicator();
  std::vector<uint8_t> send(8), recv(8);
  std::vector<int64_t> two{2}, three{3}, both{1, 1};
  auto exchange = [&](const std::vector<int64_t>& out, const std::vector<int64_t>& in) {
    self->all_to_all_v({send.data(), out, recv.data(), in, 1});
  };
  CHECK_NOTHROW(exchange(two, two));
  CHECK_THROWS_WITH(exchange(two, three), Contains("sends 2 rows to rank 0, which expects 3"));
  CHECK_THROWS_WITH(exchange(three, two), Contains("sends 3 rows to rank 0, which expects 2"));
  CHECK_THROWS_WITH(exchange(both, both), Contains("2 send and 2 receive counts"));
  CHECK_THROWS_WITH(exchange(two, {}), Contains("1 send and 0 receive counts"));
  auto gather = [&](const std::vector<int64_t>& counts) {
    self->all_gather_async(send.data(), recv.data(), counts, DType::u8)->wait();
  };
  auto scatter = [&](const std::vector<int64_t>& counts) {
    self->reduce_scatter_async(send.data(), recv.data(), counts, DType::u8, ReduceOp::sum)->wait();
  };
  CHECK_NOTHROW(gather(two));
  CHECK_THROWS_WITH(gather(both), "all_gather_async: 2 counts in a group of 1 rank");
  CHECK_THROWS_WITH(gather({-1}), "all_gather_async: a count of -1; it must not be negative");
  CHECK_NOTHROW(scatter(two));
  CHECK_THROWS_WITH(scatter({}), "reduce_scatter_async: 0 counts in a group of 1 rank");
  CHECK_THROWS_WITH(scatter({-2}), "reduce_scatter_async: a count of -2; it must not be negative");
  CHECK_THROWS_WITH(self->broadcast(send.data(), 8, DType::u8, 1), Contains("root 1"));
  CHECK_THROWS_WITH(self->broadcast(send.data(), 8, DType::u8, -1), Contains("root -1"));
}

TEST_CASE("self communicator: suite") {
  for (const auto& c : suite::communicator_cases()) {
    INFO(c.name);
    auto self = make_self_communicator();
    CHECK_NOTHROW(c.run(*self));
  }
}

TEST_CASE("thread communicator: suite") {
  double before = collective_timeout();
  set_collective_timeout(60);  // a fault may make ranks wait for ever
  for (int ranks : {1, 2, 3, 4})
    for (const auto& c : suite::communicator_cases()) {
      INFO(c.name << " on " << ranks << " ranks");
      CHECK_NOTHROW(run_ranks(ranks, [&](std::shared_ptr<Communicator> world) { c.run(*world); }));
    }
  set_collective_timeout(before);
}

TEST_CASE("thread communicator: a rank that throws ends all ranks with its message") {
  using Body = std::function<void(Communicator&)>;
  const std::vector<Body> waits = {
      [](Communicator& c) { c.barrier(); },
      [](Communicator& c) { c.sum<int64_t>(1); },
      [](Communicator& c) { c.split(0, 0); },
      [](Communicator& c) {
        std::vector<float> data(1 << 18);
        c.all_reduce_async(data.data(), 1 << 18, DType::f32, ReduceOp::sum)->wait();
      },
      [](Communicator& c) {
        std::vector<float> data(1 << 18);
        std::vector<int64_t> counts(static_cast<size_t>(c.size()), (1 << 18) / c.size());
        float* part = data.data() + c.rank() * counts[0];
        c.reduce_scatter_async(data.data(), part, counts, DType::f32, ReduceOp::sum)->wait();
        auto request = c.all_gather_async(part, data.data(), counts, DType::f32);
        while (!request->test()) {
        }
      },
  };
  for (int ranks : {2, 4})
    for (const auto& wait : waits) {
      std::atomic<int> others{0};
      auto message = failure_of(ranks, [&](std::shared_ptr<Communicator> world) {
        if (world->rank() == 1) throw Error("the disk is full", 7);
        try {
          while (true) wait(*world);
        } catch (const Error& e) {
          if (contains(e.what(), "rank 1 failed: the disk is full") && e.exit_code() == 7) ++others;
          throw;
        }
      });
      CHECK(message == "rank 1: the disk is full");
      CHECK(others == ranks - 1);
    }
}

TEST_CASE("thread communicator: failure inside a split group reaches the other groups") {
  auto message = failure_of(4, [](std::shared_ptr<Communicator> world) {
    auto half = world->split(world->rank() / 2, 0);
    if (world->rank() == 3) fail("no such file");
    while (true) half->barrier();
  });
  CHECK(message == "rank 3: no such file");
}

TEST_CASE(
    "thread communicator: a rank that throws amid asynchronous calls frees its buffers safely") {
  const std::vector<int64_t> counts{5000, 0, 5000};
  for (int round = 0; round < 30; ++round) {
    auto message = failure_of(3, [&](std::shared_ptr<Communicator> world) {
      std::vector<float> data(100000, 1.0f);
      std::vector<std::unique_ptr<Request>> requests;
      for (int i = 0; i < 10; ++i) {
        float *all = data.data() + i * 10000, *part = all + (world->rank() == 0 ? 0 : 5000);
        if (i % 3 == 0)
          requests.push_back(world->all_reduce_async(all, 10000, DType::f32, ReduceOp::sum));
        if (i % 3 == 1)
          requests.push_back(
              world->reduce_scatter_async(all, part, counts, DType::f32, ReduceOp::sum));
        if (i % 3 == 2) requests.push_back(world->all_gather_async(part, all, counts, DType::f32));
        if (world->rank() == round % 3 && i == round % 10) fail("gave up");
      }
      for (auto& r : requests) r->wait();
      world->barrier();
    });
    CHECK(contains(message, "gave up"));
  }
}

TEST_CASE("thread communicator: errors name what is wrong") {
  CHECK(contains(failure_of(2,
                            [](std::shared_ptr<Communicator> c) {
                              if (c->rank() == 0)
                                c->barrier();
                              else
                                c->sum<int64_t>(1);
                            }),
                 "ranks disagree about a collective"));
  CHECK(contains(failure_of(2,
                            [](std::shared_ptr<Communicator> c) {
                              std::vector<float> v(8);
                              c->all_reduce(v.data(), 4 + c->rank(), DType::f32, ReduceOp::sum);
                            }),
                 "all_reduce of 5 f32"));
  CHECK(contains(failure_of(2,
                            [](std::shared_ptr<Communicator> c) {
                              std::vector<int64_t> send{3, 3}, recv{3, 3};
                              if (c->rank() == 1) recv[0] = 2;
                              std::vector<uint8_t> a(6), b(6);
                              c->all_to_all_v({a.data(), send, b.data(), recv, 1});
                              c->barrier();
                            }),
                 "rank 0 sends 3 rows to rank 1, which expects 2"));
  CHECK(contains(failure_of(2,
                            [](std::shared_ptr<Communicator> c) {
                              set_progress_note("step 12, evaluation");
                              if (c->rank() == 0) c->barrier();
                            }),
                 "rank 1 (last at: step 12, evaluation) has finished and left"));
  CHECK(contains(failure_of(3, [](std::shared_ptr<Communicator> c) { make_mesh(c, 2); }),
                 "expert_parallel = 2 does not divide the number of ranks, 3"));
}

TEST_CASE("thread communicator: ranks that make different calls get an error at once") {
  std::vector<float> from(1 << 16), to(1 << 17);
  std::vector<int64_t> rows{1, 1};
  struct Calls {
    const char* message;
    std::function<void(Communicator&, bool)> call;  // differs with the flag
  };
  float* data = from.data();
  for (int64_t count : {8, 1 << 15}) {  // eager and not
    const Calls kCalls[] = {
        {"broadcast of",
         [&](Communicator& c, bool other) { c.broadcast(data, count, DType::f32, other); }},
        {"all_reduce of",
         [&](Communicator& c, bool other) {
           c.all_reduce(data, count, DType::f32, other ? ReduceOp::max : ReduceOp::sum);
         }},
        {"f64",
         [&](Communicator& c, bool other) {
           c.all_reduce(data, count, other ? DType::i64 : DType::f64, ReduceOp::sum);
         }},
        {"all_gather of",
         [&](Communicator& c, bool other) {
           c.all_gather(data, to.data(), count - other, DType::f32);
         }},
        {"reduce_scatter of",
         [&](Communicator& c, bool other) {
           if (other) return c.all_gather(data, to.data(), count, DType::f32);
           c.reduce_scatter(data, to.data(), count, DType::f32, ReduceOp::sum);
         }},
        {"all_gather_async of",
         [&](Communicator& c, bool other) {
           std::vector<int64_t> counts{count, count - other};
           c.all_gather_async(data, to.data(), counts, DType::f32)->wait();
         }},
        {"reduce_scatter_async of",
         [&](Communicator& c, bool other) {
           std::vector<int64_t> counts{count / 2, count / 2};
           auto op = other ? ReduceOp::max : ReduceOp::sum;
           c.reduce_scatter_async(data, to.data(), counts, DType::f32, op)->wait();
         }},
        {"in reduce_scatter_async has",
         [&](Communicator& c, bool other) {
           std::vector<int64_t> counts{count / 2 + other, count / 2 - other};
           c.reduce_scatter_async(data, to.data(), counts, DType::f32, ReduceOp::sum)->wait();
         }},
        {"all_to_all_v of 4-byte rows",
         [&](Communicator& c, bool other) {
           c.all_to_all_v({data, rows, to.data(), rows, 4 + other});
         }},
    };
    for (const auto& [message, call] : kCalls) {
      CAPTURE(message, count);
      std::string told = failure_of(2, [&, &call = call](std::shared_ptr<Communicator> c) {
        call(*c, c->rank() == 1);
        c->barrier();
      });
      CHECK_THAT(told, Contains("ranks disagree about a collective") && Contains(message));
    }
  }
}

TEST_CASE("thread communicator: an error of any kind on one rank becomes that of all") {
  struct Silent : std::exception {
    const char* what() const noexcept override { return ""; }
  };
  struct Kind {
    std::string message;
    std::function<void()> raise;
  };
  const Kind kKinds[] = {{"the disk is full", [] { fail("the disk is full"); }},
                         {std::bad_alloc().what(), [] { throw std::bad_alloc(); }},
                         {"out of range", [] { throw std::out_of_range("out of range"); }},
                         {"unknown error", [] { throw Silent(); }}};
  for (const auto& [message, raise] : kKinds) {
    std::atomic<int> told{0}, behind{0};
    run_ranks(4, [&, &raise = raise, &message = message](std::shared_ptr<Communicator> c) {
      try {
        on_all_ranks(*c, [&] {
          if (c->rank() == 1) raise();
          if (c->rank() == 3) fail("a later one");
        });
      } catch (const Error& e) {
        told += contains(e.what(), message);
      }
      // All are in step: the next one goes well.
      on_all_ranks(*c, [&] { ++behind; });
    });
    CAPTURE(message);
    CHECK(told == 4);
    CHECK(behind == 4);
  }
}

TEST_CASE("failure record: the first message stays, and its rank may still tell its exit code") {
  FailureRecord failure;
  CHECK(failure.claim(1, 1, "the disk is full"));  // a rank that retreats from a collective
  CHECK_FALSE(failure.claim(0, 3, "rank 1 failed"));
  CHECK(failure.exit_code == 1);
  CHECK(failure.claim(1, 7, "error on rank 1"));  // the same when it ends
  CHECK(failure.exit_code == 7);
  CHECK(failure.rank == 1);
  CHECK(std::string(failure.message) == "the disk is full");
  FailureRecord other;
  CHECK(other.claim(2, 5, std::string(5000, 'x')));
  CHECK(other.exit_code == 5);
  CHECK(std::string(other.message) == std::string(sizeof other.message - 1, 'x'));
}

TEST_CASE("thread communicator: waiting for a rank that hangs ends at the timeout") {
  double before = collective_timeout();
  set_collective_timeout(0.3);
  auto message = failure_of(2, [](std::shared_ptr<Communicator> c) {
    set_progress_note("step 3, data");
    if (c->rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(900));
    c->barrier();
  });
  set_collective_timeout(before);
  CHECK(contains(message, "for rank 1 (last at: step 3, data) in barrier"));
}

TEST_CASE("thread communicator: of a chain of waiting ranks the one that hangs is named") {
  constexpr int kRanks = 6;
  double before = collective_timeout();
  set_collective_timeout(0.2);
  // Whoever's patience ends first: only one of them waits for the last rank itself.
  for (int round = 0; round < 3; ++round) {
    auto message = failure_of(kRanks, [](std::shared_ptr<Communicator> c) {
      auto even = c->split(c->rank() / 2, 0), odd = c->split((c->rank() + 1) / 2, 0);
      if (c->rank() == kRanks - 1) std::this_thread::sleep_for(std::chrono::milliseconds(600));
      auto& upper = c->rank() % 2 ? odd : even;
      auto& lower = c->rank() % 2 ? even : odd;
      if (c->rank() < kRanks - 1) upper->barrier();
      lower->barrier();
    });
    CHECK(contains(message, "for rank 5 in barrier"));
  }
  set_collective_timeout(before);
}

TEST_CASE("thread communicator: a rank at work is waited for, however long it takes") {
  double before = collective_timeout();
  set_collective_timeout(1);
  CHECK_NOTHROW(run_ranks(3, [&](std::shared_ptr<Communicator> c) {
    auto upper = c->split(c->rank() > 0, 0), lower = c->split(c->rank() < 2, 0);
    for (int i = 0; c->rank() == 2 && i < 13; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      beat();
    }
    // Rank 0 waits for rank 1, which waits for rank 2.
    if (c->rank() > 0) upper->barrier();
    if (c->rank() < 2) lower->barrier();
  }));
  set_collective_timeout(0);  // for ever
  CHECK_NOTHROW(run_ranks(2, [&](std::shared_ptr<Communicator> c) {
    if (c->rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(500));
    c->barrier();
  }));
  set_collective_timeout(before);
}

TEST_CASE("thread communicator: ranks that all wait are named with the calls that they wait in") {
  double before = collective_timeout();
  set_collective_timeout(0.3);
  auto message = failure_of(4, [](std::shared_ptr<Communicator> c) {
    auto half = c->split(c->rank() / 2, 0);
    set_progress_note(fmt::format("part {}", c->rank()));
    if (c->rank() == 0) half->barrier();
    if (c->rank() == 1) c->barrier();
    if (c->rank() > 1) half->sum<int64_t>(1), c->barrier();
  });
  set_collective_timeout(before);
  CHECK_THAT(message, Contains("waits in barrier)") && Contains("last at: part "));
}

TEST_CASE("mesh: expert and replica groups of four ranks") {
  run_ranks(4, [](std::shared_ptr<Communicator> world) {
    Mesh mesh = make_mesh(world, 2);
    int64_t neighbours = mesh.expert->sum<int64_t>(1 << world->rank());
    int64_t owners = mesh.replica->sum<int64_t>(1 << world->rank());
    check(neighbours == (world->rank() < 2 ? 0b0011 : 0b1100), "expert group {}", neighbours);
    check(owners == (world->rank() % 2 ? 0b1010 : 0b0101), "replica group {}", owners);
  });
  Mesh self = make_self_mesh();
  CHECK(self.ranks() == 1);
  CHECK(self.replicas() == 1);
}
