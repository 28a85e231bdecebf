// What a ledger sums over micro-batches and ranks, where rows are told of and where they are those
// of the choices.
#include <atomic>
#include <optional>

#include "core/tensor/read_together.h"
#include "moe/routing_ledger.h"
#include "parallel/thread_communicator.h"
#include "tests/support/catch.h"
#include "tests/support/packed_sums.h"

namespace adagate::test {
namespace {

constexpr int64_t kLayers = 2, kExperts = 2;

Tensor assigned(double first, double second) {
  RoutingSums sums{.single = {0, 0},
                   .assigned = {first, second},
                   .probability = {first, second},
                   .by_count = {0, first + second, 0},
                   .tokens = first + second};
  return packed_sums(sums, kExperts);
}

void end(RoutingLedger& ledger, Communicator& world) {
  ledger.read(read_together(ledger.unread()));
  std::vector<double> words = ledger.take_words(world);
  world.sum_in_place(std::span(words));
  ledger.finish(words);
}

}  // namespace

TEST_CASE("ledger: rows that the host need not know come from the sums, for each rank", "[moe]") {
  for (int ranks : {1, 3}) {
    INFO(ranks << " ranks");
    std::optional<RoutingLedger> told;
    std::atomic<int> wrong = 0;  // Catch's checks are for one thread
    run_ranks(ranks, [&](std::shared_ptr<Communicator> world) {
      int rank = world->rank();
      RoutingLedger ledger(kLayers, kExperts);
      for (int m : {0, 1}) {
        ledger.add(0, assigned(10 * (m + 1) + rank, 5));
        ledger.add(0, {.rows = {}, .flops = 7, .flops_per_row = 100});
        ledger.add(1, assigned(2, 3));
        ledger.add(1, {.rows = 4 + rank, .rows_sent = 1, .flops = 7, .flops_per_row = 1000});
        ledger.reduce(*world);
        wrong += !ledger.reduced();
      }
      wrong += ledger.last().to_doubles()[0 * kExperts + 2] != ranks * 20 + (ranks == 3 ? 3 : 0);
      end(ledger, *world);
      if (rank == 0) told = ledger;
    });
    CHECK(wrong == 0);
    REQUIRE(told);
    LayerRouting first = told->total(0), second = told->total(1);
    double others = ranks == 3 ? 2 * (1 + 2) : 0;  // what ranks 1 and 2 have more, in both
    CHECK(first.sums.assigned == std::vector<double>{ranks * 30 + others, ranks * 10.0});
    CHECK(first.rank_rows ==
          (ranks == 1 ? std::vector<double>{40} : std::vector<double>{40, 42, 44}));
    CHECK(first.flops == ranks * 14 + 100 * first.assignments());
    CHECK(second.sums.assigned == std::vector<double>{ranks * 4.0, ranks * 6.0});
    CHECK(second.rank_rows ==
          (ranks == 1 ? std::vector<double>{8} : std::vector<double>{8, 10, 12}));
    CHECK(second.rows_sent == 2 * ranks);
    CHECK(second.flops == ranks * 14 + 1000 * (ranks == 1 ? 8 : 30));
  }
}

TEST_CASE("ledger: a step's end may come twice, and nothing counts twice", "[moe]") {
  std::shared_ptr<Communicator> world = make_self_communicator();
  RoutingLedger ledger(1, kExperts);
  for (int repeat : {1, 2}) {
    ledger.add(0, assigned(3, 4));
    ledger.add(0, {.rows = {}, .rows_sent = 2, .flops = 1, .flops_per_row = 10});
    ledger.reduce(*world);
    end(ledger, *world);
    end(ledger, *world);
    LayerRouting total = ledger.total(0);
    CHECK(total.sums.assigned == std::vector<double>{3.0 * repeat, 4.0 * repeat});
    CHECK(total.rank_rows == std::vector<double>{7.0 * repeat});
    CHECK(total.rows_sent == 2.0 * repeat);
    CHECK(total.flops == 71.0 * repeat);
  }
  ledger.clear();
  CHECK(ledger.total(0).assignments() == 0);
  CHECK(ledger.total(0).rank_rows.empty());
}

}  // namespace adagate::test
