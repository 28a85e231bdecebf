#include <algorithm>
#include <numeric>
#include <set>

#include "core/base/error.h"
#include "data/sampler.h"
#include "tests/support/catch.h"

using namespace adagate;
using Catch::Contains;

namespace {

std::vector<int64_t> counting(int64_t size) {
  std::vector<int64_t> ids(size);
  std::iota(ids.begin(), ids.end(), 0);
  return ids;
}

struct Case {
  int64_t size, global_batch, accumulation;
  bool shuffle, drop_last;
};

const Case kCases[] = {{23, 8, 1, true, false}, {23, 8, 3, true, true},  {24, 8, 2, true, false},
                       {5, 8, 2, true, false},  {1, 1, 1, true, false},  {1, 4, 3, true, false},
                       {23, 7, 4, false, true}, {40, 3, 5, true, false}, {8, 8, 8, true, true}};

SamplerConfig config_of(const Case& c, uint64_t seed = 5) {
  return {seed, {.size = c.global_batch, .drop_last = c.drop_last}, c.accumulation, c.shuffle};
}

}  // namespace

TEST_CASE("every rank count sees the same global batches, each sample once an epoch") {
  for (const Case& c : kCases) {
    Sampler reference(config_of(c), c.size);
    for (int ranks = 1; ranks <= 5; ++ranks) {
      std::vector<Sampler> samplers(ranks, Sampler(config_of(c), c.size));
      DataPosition position;
      std::vector<int64_t> seen;
      for (; position.epoch == 0; position = reference.after(position)) {
        auto global = reference.global_batch(position);
        std::vector<int64_t> rebuilt(global.size(), -1);
        for (int rank = 0; rank < ranks; ++rank) {
          auto batches = samplers[rank].micro_batches(position, rank, ranks);
          REQUIRE(static_cast<int64_t>(batches.size()) == c.accumulation);
          int64_t row = rank;
          for (const BatchRows& batch : batches) {
            REQUIRE(batch.sample_ids.size() == batch.places.size());
            CHECK(batches[0].places.size() - batch.places.size() <= 1);  // dealt evenly
            for (size_t i = 0; i < batch.places.size(); ++i, row += ranks) {
              REQUIRE(batch.places[i] == row);
              rebuilt.at(row) = batch.sample_ids[i];
            }
          }
        }
        REQUIRE(rebuilt == global);
        seen.insert(seen.end(), global.begin(), global.end());
      }
      CHECK(position == DataPosition{1, 0});
      CHECK(static_cast<int64_t>(seen.size()) == reference.samples_per_epoch());
      int64_t dropped = c.drop_last ? c.size % c.global_batch : 0;
      CHECK(static_cast<int64_t>(seen.size()) == c.size - dropped);
      CHECK(std::set<int64_t>(seen.begin(), seen.end()).size() == seen.size());
    }
  }
}

TEST_CASE("the shuffle depends on seed and epoch, and is fair") {
  auto first = shuffled_order(1, 0, 100);
  CHECK(first == shuffled_order(1, 0, 100));
  CHECK(first != shuffled_order(1, 1, 100));
  CHECK(first != shuffled_order(2, 0, 100));
  CHECK(std::is_permutation(first.begin(), first.end(), counting(100).begin()));
  CHECK(first != counting(100));
  CHECK(shuffled_order(1, 0, 1) == counting(1));
  // Each of the 24 orders of 4 about 1000 times: chi squared with 23 degrees stays below 60.
  std::vector<int> counts(256, 0);
  for (int64_t epoch = 0; epoch < 24000; ++epoch) {
    auto order = shuffled_order(9, epoch, 4);
    ++counts[order[0] * 64 + order[1] * 16 + order[2] * 4 + order[3]];
  }
  double chi = 0;
  int kinds = 0;
  for (int n : counts) {
    if (n == 0) continue;
    ++kinds;
    chi += (n - 1000.0) * (n - 1000.0) / 1000.0;
  }
  CHECK(kinds == 24);
  CHECK(chi < 60);
}

TEST_CASE("a sampler deals out every epoch's own order, in whatever sequence they are asked for") {
  for (const Case& c : kCases) {
    Sampler sampler(config_of(c), c.size);
    for (int64_t epoch : {0, 1, 5, 1, 0}) {
      auto order = c.shuffle ? shuffled_order(5, epoch, c.size) : counting(c.size);
      order.resize(sampler.samples_per_epoch());
      std::vector<int64_t> dealt;
      for (int64_t step = 0; step < sampler.steps_in(epoch); ++step)
        for (int64_t id : sampler.global_batch({epoch, step})) dealt.push_back(id);
      CHECK(dealt == order);
    }
  }
}

TEST_CASE("positions and consumed samples tell the same") {
  for (const Case& c : kCases) {
    Sampler sampler(config_of(c), c.size);
    DataPosition position;
    int64_t consumed = 0;
    while (position.epoch < 3) {
      CHECK(sampler.consumed_samples(position) == consumed);
      CHECK(sampler.position_at(consumed) == position);
      consumed += static_cast<int64_t>(sampler.global_batch(position).size());
      position = sampler.after(position);
    }
  }
  Sampler sampler({.batch = {.size = 8}}, 23);
  CHECK_THROWS_WITH(sampler.position_at(25), Contains("no step begins after 2 samples"));
  CHECK_THROWS_AS(sampler.position_at(-8), Error);
}

TEST_CASE("an explicit order takes the place of the shuffle until it is taken back") {
  Sampler sampler({.batch = {.size = 4}}, 6);
  auto shuffled = sampler.global_batch({1, 0});
  sampler.set_order({5, 4, 3, 2, 1, 0});
  CHECK(sampler.global_batch({0, 0}) == std::vector<int64_t>{5, 4, 3, 2});
  CHECK(sampler.global_batch({7, 1}) == std::vector<int64_t>{1, 0});
  sampler.set_order({});
  CHECK(sampler.global_batch({1, 0}) == shuffled);
  CHECK_THROWS_WITH(sampler.set_order({0, 1, 2}), Contains("3 samples for a data set of 6"));
  CHECK_THROWS_WITH(sampler.set_order({0, 1, 2, 3, 4, 4}), Contains("sample 4"));
  CHECK_THROWS_WITH(sampler.set_order({0, 1, 2, 3, 4, 6}), Contains("sample 6"));
  CHECK_THROWS_WITH(sampler.set_order({0, 1, 2, 3, 4, -1}), Contains("sample -1"));
}

TEST_CASE("a sampler refuses impossible numbers") {
  CHECK_THROWS_WITH(Sampler({}, 0), Contains("empty"));
  CHECK_THROWS_WITH(Sampler({.batch = {.size = 0}}, 4), Contains("global batch of 0"));
  CHECK_THROWS_WITH(Sampler({.accumulation = 0}, 4), Contains("0 micro-batches"));
  CHECK_THROWS_WITH(Sampler({.batch = {.size = 8, .drop_last = true}}, 7),
                    Contains("data.keep_last_batch"));
  Sampler sampler({.batch = {.size = 8}}, 16);
  CHECK_THROWS_AS(sampler.global_batch({0, 2}), Error);
  CHECK_THROWS_AS(sampler.global_batch({-1, 0}), Error);
  CHECK_THROWS_AS(sampler.micro_batches({0, 0}, 2, 2), Error);
}
