// The start of a run over several hosts: who is told to be out of reach, and what the bound does.
#include <atomic>
#include <chrono>
#include <string>
#include <thread>

#include "parallel/hello.h"
#include "parallel/rank_names.h"
#include "parallel/start_guard.h"
#include "tests/support/catch.h"

using namespace adagate;
using Catch::Contains;

TEST_CASE("start: hosts without a way to each other are named in pairs, with the remedy") {
  const std::string kRemedy = "--mca btl_tcp_if_include IFACE --mca oob_tcp_if_include IFACE";
  auto message = unreachable_message(
      {{0, "h1", {2, 3}}, {1, "h1", {2}}, {2, "h2", {0, 1}}, {3, "h2", {}}}, 4, 5);
  CHECK_THAT(message, Contains("between h1 and h2 within 5 s") && Contains(kRemedy));
  // One way only, and without the word of the other side.
  CHECK_THAT(unreachable_message({{0, "h1", {}}, {1, "h2", {0}}}, 2, 1),
             Contains("h1 and h2 within"));
  CHECK_THAT(unreachable_message({{1, "h2", {0}}}, 2, 1), Contains("h2 and the host of rank 0"));
  // A rank of the same host is no matter of networks.
  message = unreachable_message({{0, "h1", {1}}, {1, "h1", {}}}, 2, 60);
  CHECK_THAT(message, Contains("nothing from rank 1 of h1 within 60 s") && !Contains("mca"));
  // Many pairs are counted.
  std::vector<StartReport> reports;
  for (int r = 0; r < 8; ++r) reports.push_back({r, fmt::format("h{}", r), {(r + 1) % 8}});
  CHECK_THAT(unreachable_message(reports, 8, 1), Contains("4 more within"));
}

TEST_CASE("start: a stage that does not end in time is given up, by its name") {
  std::string told;
  std::atomic<int> given_up{0};
  auto give_up = [&](const std::string& message) {
    told = message;
    ++given_up;
  };
  auto wait = [](int milliseconds) {
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
  };
  {
    StartGuard guard(1, give_up);
    wait(1100);  // nothing has begun
    for (int stage = 0; stage < 4; ++stage) {
      guard.begin("MPI_Init");
      wait(300);
    }
    guard.pause();
    wait(1100);
    CHECK(given_up == 0);
    guard.begin("MPI_Comm_split_type");
    for (int i = 0; i < 10000 && given_up == 0; ++i) wait(1);
  }
  CHECK_THAT(told,
             Contains("MPI_Comm_split_type has not returned within 1 s on host " + host_name()));
  StartGuard unbound(0, give_up);
  unbound.begin("MPI_Init");
  wait(50);
  CHECK(given_up == 1);
}
