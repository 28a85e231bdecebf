// What ranks must have alike, and how messages name ranks and hosts.
#include <atomic>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "parallel/agree.h"
#include "parallel/rank_names.h"
#include "parallel/same_on_all_ranks.h"
#include "parallel/thread_communicator.h"
#include "tests/support/catch.h"

using namespace adagate;

namespace {

// The messages that `body` ends the ranks with; "" of a rank without an error.
std::set<std::string> messages_of(int ranks,
                                  const std::function<void(std::shared_ptr<Communicator>)>& body) {
  std::set<std::string> messages;
  std::mutex mutex;
  run_ranks(ranks, [&](std::shared_ptr<Communicator> c) {
    std::string message;
    try {
      body(c);
    } catch (const Error& e) {
      message = e.what();
    }
    std::lock_guard lock(mutex);
    messages.insert(message);
  });
  return messages;
}

// The one message of all ranks, whose facts are by_rank(rank).
std::string compared(int ranks, const std::function<std::vector<RankFact>(int)>& by_rank) {
  auto messages = messages_of(ranks, [&](std::shared_ptr<Communicator> c) {
    same_on_all_ranks(*c, by_rank(c->rank()), "start them alike");
  });
  REQUIRE(messages.size() == 1);
  return *messages.begin();
}

}  // namespace

TEST_CASE("ranks: equal facts pass, whatever is shown of them") {
  for (int ranks : {1, 2, 5})
    CHECK(compared(ranks, [](int rank) -> std::vector<RankFact> {
            return {{"seed", "7"},
                    file_fact("data.train", "path of " + std::to_string(rank), 0x1234),
                    {"empty", ""}};
          }).empty());
  CHECK(compared(3, [](int) { return std::vector<RankFact>(); }).empty());
}

TEST_CASE("ranks: a difference is one message with the name, the values and who has which") {
  auto batch = [](int other) {
    return [other](int rank) -> std::vector<RankFact> {
      return {{"seed", "7"}, {"train.batch", rank == other ? "16" : "8"}};
    };
  };
  CHECK(compared(2, batch(1)) == "train.batch is 8 on rank 0, 16 on rank 1: start them alike");
  CHECK(compared(4, batch(0)) ==
        "train.batch is 16 on rank 0, 8 on ranks 1, 2 and 3: start them alike");
  CHECK(compared(7, batch(2)) ==
        "train.batch is 8 on ranks 0, 1, 3 and 3 more, 16 on rank 2: start them alike");
}

TEST_CASE("ranks: several differences are named in one message") {
  CHECK(compared(2, [](int rank) -> std::vector<RankFact> {
          std::string r = std::to_string(rank);
          return {{"a", r}, {"b", "same"}, {"c", r}};
        }) == "a is 0 on rank 0, 1 on rank 1 (c differs, too): start them alike");
  // Each rank differs in its own way: those that agree on the first difference stand together.
  CHECK(compared(3, [](int rank) -> std::vector<RankFact> {
          return {{"a", rank == 1 ? "1" : "0"}, {"b", rank == 2 ? "1" : "0"}};
        }) == "a is 0 on ranks 0 and 2, 1 on rank 1 (b differs, too): start them alike");
  CHECK(compared(5, [](int rank) -> std::vector<RankFact> {
          return {{"a", std::to_string(rank)}};
        }) == "a is 0 on rank 0, 1 on rank 1, 2 on rank 2, 2 more differ: start them alike");
  CHECK(
      compared(2, [](int rank) {
        std::vector<RankFact> facts;
        for (char name = 'a'; name < 'h'; ++name)
          facts.push_back({std::string(1, name), std::to_string(rank)});
        return facts;
      }) == "a is 0 on rank 0, 1 on rank 1 (b, c, d, e and 2 more differ, too): start them alike");
}

TEST_CASE("ranks: odd facts are told apart as well") {
  // A fact that one rank lacks, empty values, and contents that run into each other.
  CHECK(compared(2, [](int rank) -> std::vector<RankFact> {
          if (rank == 0) return {{"a", "1"}};
          return {{"a", "1"}, {"b", ""}};
        }) == "b is unknown on rank 0, empty on rank 1: start them alike");
  CHECK(compared(2, [](int rank) -> std::vector<RankFact> {
          return {{"a", rank == 0 ? "12" : "1"}, {"b", rank == 0 ? "3" : "23"}};
        }) == "a is 12 on rank 0, 1 on rank 1 (b differs, too): start them alike");
  CHECK(compared(2, [](int rank) -> std::vector<RankFact> {
          return {{"a", "1:2" + std::string(rank == 0 ? "" : "\n")}};
        }).substr(0, 18) == "a is 1:2 on rank 0");
  CHECK(compared(2,
                 [](int rank) -> std::vector<RankFact> {
                   return {file_fact("data.train", rank == 0 ? "a.txt" : "b.txt",
                                     static_cast<uint64_t>(rank) + 0xa0)};
                 }) ==
        "data.train is a.txt (content 00000000000000a0) on rank 0, b.txt (content "
        "00000000000000a1) on rank 1: start them alike");
  auto cut = compared(2, [](int rank) -> std::vector<RankFact> {
    return {{"a", std::string(1000, rank == 0 ? 'x' : 'y')}};
  });
  CHECK(cut.size() < 400);
  CHECK(cut.find("x... on rank 0, y") != std::string::npos);
}

TEST_CASE("ranks: names tell ranks, and hosts where there are several") {
  RankNames one({"a", "a", "a"});
  CHECK_FALSE(one.several_hosts());
  CHECK(one.of(2) == "rank 2");
  RankNames two({"a", "a", "b", "b"});
  CHECK(two.several_hosts());
  CHECK(two.of(1) == "rank 1 (host a)");
  CHECK(two.of(std::vector{2, 3}) == "ranks 2 and 3 (host b)");
  CHECK(two.of(std::vector{0, 3}) == "ranks 0 and 3 (hosts a and b)");
  std::vector<std::string> hosts;
  std::vector<int> all;
  for (int r = 0; r < 9; ++r) {
    hosts.push_back("n" + std::to_string(r));
    all.push_back(r);
  }
  CHECK(RankNames(hosts).of(all) == "ranks 0, 1, 2 and 6 more (hosts n0, n1, n2 and 6 more)");
  std::vector<std::string> told[3];  // by each rank; checked afterwards, on one thread
  run_ranks(3, [&](std::shared_ptr<Communicator> c) {
    std::string host(c->rank() == 1 ? 200 : 3, 'h');
    RankNames names(*c, host);
    for (int r = 0; r < 3; ++r) told[c->rank()].push_back(names.host(r));
  });
  const std::vector<std::string> expected{"hhh", std::string(63, 'h'), "hhh"};
  for (const auto& hosts_of_rank : told) CHECK(hosts_of_rank == expected);
  CHECK_FALSE(host_name().empty());
  CHECK(host_name().find('.') == std::string::npos);
}

TEST_CASE("ranks: an error that others do not have names its ranks") {
  auto failing_on = [](std::set<int> failing) {
    auto messages = messages_of(3, [&](std::shared_ptr<Communicator> c) {
      on_all_ranks(*c, [&] { check(failing.count(c->rank()) == 0, "no such file"); });
    });
    REQUIRE(messages.size() == 1);
    return *messages.begin();
  };
  CHECK(failing_on({}).empty());
  CHECK(failing_on({0, 1, 2}) == "no such file");
  CHECK(failing_on({0}) == "no such file");  // rank 0 works for all
  CHECK(failing_on({1}) == "no such file [on rank 1]");
  CHECK(failing_on({0, 2}) == "no such file [on ranks 0 and 2]");
}
