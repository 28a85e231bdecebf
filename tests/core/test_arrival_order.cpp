// The order of arriving rows against one sorted plainly, on the CPU and on a guarded device.
#include <algorithm>
#include <numeric>

#include "core/device/copy.h"
#include "core/ops/arrival_order.h"
#include "tests/support/catch.h"
#include "tests/support/gradient_check.h"
#include "tests/support/guarded_device.h"

using namespace adagate;
using namespace adagate::test;

namespace {

void check_order(const std::vector<int64_t>& counts, int64_t sources, Device device) {
  const auto groups = static_cast<int64_t>(counts.size()) / sources;
  std::vector<int64_t> group_of;  // of each arriving row
  for (size_t i = 0; i < counts.size(); ++i)
    group_of.insert(group_of.end(), static_cast<size_t>(counts[i]),
                    static_cast<int64_t>(i) % groups);
  std::vector<int32_t> expected(group_of.size());
  std::iota(expected.begin(), expected.end(), 0);
  std::stable_sort(expected.begin(), expected.end(), [&](int32_t a, int32_t b) {
    return group_of[static_cast<size_t>(a)] < group_of[static_cast<size_t>(b)];
  });

  TransferStats before = transfer_stats();
  ArrivalOrder order = arrival_order(counts, sources, device);
  CHECK(transfer_stats().reads == before.reads);
  CHECK(order.to_sorted.to_host<int32_t>() == expected);
  std::vector<int32_t> back = order.to_arrived.to_host<int32_t>();
  REQUIRE(back.size() == expected.size());
  for (size_t i = 0; i < expected.size(); ++i)
    CHECK(back[static_cast<size_t>(expected[i])] == static_cast<int32_t>(i));
  CHECK(order.offsets.groups() == groups);
  CHECK(order.offsets.device.to_host<int64_t>() == order.offsets.host);
  for (int64_t g = 0; g <= groups; ++g)
    CHECK(order.offsets.host[static_cast<size_t>(g)] ==
          std::count_if(group_of.begin(), group_of.end(), [&](int64_t of) { return of < g; }));
}

}  // namespace

TEST_CASE("arrival order: by group, inside by source, as rows came") {
  for (Device device : {Device{}, guarded_device()})
    for (int64_t sources : {1, 2, 3, 5})
      for (int64_t groups : {1, 2, 7}) {
        INFO(sources << " sources, " << groups << " groups");
        std::vector<int64_t> counts;
        Tensor drawn = random_integers({sources * groups}, 7, 0, 6);
        for (int32_t n : drawn.to_host<int32_t>()) counts.push_back(n);
        check_order(counts, sources, device);
        counts.assign(counts.size(), 0);
        check_order(counts, sources, device);
        counts.back() = 3;
        check_order(counts, sources, device);
      }
  CHECK_THROWS_AS(arrival_order(std::vector<int64_t>(5), 2, {}), Error);
}
