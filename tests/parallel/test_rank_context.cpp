// Which rank tells the user that the ranks stand still.
#include <string>
#include <thread>
#include <vector>

#include "core/base/error.h"
#include "parallel/rank_context.h"
#include "parallel/watchdog.h"
#include "tests/support/catch.h"

using namespace adagate;
using namespace std::chrono_literals;

namespace {

constexpr double kBound = 0.05;

// Whether world rank `self` of four on three hosts, waiting since before the bound, says so now.
bool speaks(int self, const std::vector<int>& waiting) {
  FailureRecord failure;
  std::vector<RankStatus> status(4);
  for (int r : waiting) status[static_cast<size_t>(r)].waits_in.set("all_reduce");
  RankContext context(&failure, status.data(), 4, {0, 1, 2, 3}, self, nullptr);
  context.set_hosts({"h1", "h1", "h2", "h3"});
  Standstill still;
  context.check_standstill(still, -1, "all_reduce");
  std::this_thread::sleep_for(100ms);
  try {
    context.check_standstill(still, -1, "all_reduce");
  } catch (const Error&) {
    return true;
  }
  return false;
}

}  // namespace

TEST_CASE("standstill: hosts whose ranks wait alike speak one after the other") {
  double before = collective_timeout();
  set_collective_timeout(kBound);
  CHECK(speaks(0, {0, 1, 2}));
  CHECK(speaks(1, {0, 1, 2}));  // of one host: they agree through memory
  CHECK_FALSE(speaks(2, {0, 1, 2}));
  CHECK(speaks(2, {2, 3}));  // the first host hangs
  CHECK_FALSE(speaks(3, {2, 3}));
  CHECK(speaks(3, {3}));
  set_collective_timeout(before);
}
