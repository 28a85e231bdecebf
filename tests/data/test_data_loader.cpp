#include <atomic>
#include <chrono>
#include <numeric>
#include <thread>

#include "core/base/error.h"
#include "data/data_loader.h"
#include "tests/support/catch.h"

using namespace adagate;
using Catch::Contains;

namespace {

// Sample i: i % 4 + 1 tokens of value i. Fails on sample `broken`.
class CountingDataset : public Dataset {
 public:
  explicit CountingDataset(int64_t size, int64_t broken = -1) : size_(size), broken_(broken) {}
  int64_t size() const override { return size_; }
  Sample get(int64_t id) const override {
    check(id != broken_, "sample {} is broken", id);
    ++reads;
    std::vector<int32_t> ids(id % 4 + 1, static_cast<int32_t>(id));
    return {ids, ids};
  }
  mutable std::atomic<int64_t> reads = 0;

 private:
  int64_t size_, broken_;
};

using Ids = std::vector<int64_t>;

// Sample ids of the next steps, micro-batch after micro-batch, with -1 after each.
Ids trace(DataLoader& loader, int steps) {
  Ids ids;
  for (int step = 0; step < steps; ++step) {
    for (const Batch& batch : loader.next_step()) {
      REQUIRE(static_cast<int64_t>(batch.tokens.size()) == batch.rows * batch.sequence);
      for (int64_t row = 0; row < batch.rows; ++row)
        REQUIRE(batch.tokens[row * batch.sequence] == batch.sample_ids[row]);
      ids.insert(ids.end(), batch.sample_ids.begin(), batch.sample_ids.end());
      ids.push_back(-1);
    }
  }
  return ids;
}

SamplerConfig config() {
  return {.seed = 3, .batch = {.size = 7}, .accumulation = 2};
}

}  // namespace

TEST_CASE("prefetching changes nothing but when batches are made") {
  CountingDataset dataset(23);
  for (int ranks : {1, 3}) {
    DataLoader plain(dataset, config(), ranks - 1, ranks, 0);
    Ids expected = trace(plain, 17);
    for (int depth : {1, 2, 9}) {
      DataLoader ahead(dataset, config(), ranks - 1, ranks, depth);
      CHECK(trace(ahead, 17) == expected);
      CHECK(ahead.position() == plain.position());
    }
  }
  DataLoader loader(dataset, config(), 0, 1, 2);
  DataLoader moved = std::move(loader);  // the thread must not hold on to the old object
  DataLoader plain(dataset, config(), 0, 1, 0);
  CHECK(trace(moved, 17) == trace(plain, 17));
}

TEST_CASE("a restored loader goes on exactly, also on other rank counts") {
  CountingDataset dataset(23);
  for (int stop = 0; stop <= 9; ++stop) {  // 4 steps an epoch: inside and at the boundary
    DataLoader whole(dataset, config(), 0, 1, 2);
    trace(whole, stop);
    DataState state = whole.state();
    CHECK(state.position == DataPosition{stop / 4, stop % 4});
    CHECK(whole.consumed_samples() == stop / 4 * 23 + stop % 4 * 7);
    Ids expected = trace(whole, 6);
    DataLoader resumed(dataset, config(), 0, 1, 2);
    trace(resumed, 3);
    resumed.restore(state);
    CHECK(trace(resumed, 6) == expected);

    std::vector<std::unique_ptr<DataLoader>> ranks;
    for (int rank = 0; rank < 3; ++rank) {
      ranks.push_back(std::make_unique<DataLoader>(dataset, config(), rank, 3, 1));
      ranks[rank]->restore(state);
    }
    Ids rebuilt;
    for (int step = 0; step < 6; ++step) {
      Ids global(7, -2);
      for (auto& loader : ranks)
        for (const Batch& batch : loader->next_step())
          for (int64_t row = 0; row < batch.rows; ++row)
            global.at(batch.places[row]) = batch.sample_ids[row];
      for (int64_t id : global)
        if (id != -2) rebuilt.push_back(id);
    }
    std::erase(expected, -1);
    CHECK(rebuilt == expected);
  }
}

TEST_CASE("an explicit order is taken at an epoch's start and survives a resume") {
  CountingDataset dataset(23);
  DataLoader loader(dataset, config(), 0, 1, 3);
  Ids backwards(23);
  for (int64_t i = 0; i < 23; ++i) backwards[i] = 22 - i;
  trace(loader, 2);
  CHECK_THROWS_WITH(loader.set_order(backwards), Contains("between epochs"));
  trace(loader, 2);
  REQUIRE(loader.position() == DataPosition{1, 0});
  loader.set_order(backwards);  // although batches of the shuffle are already made
  CHECK(trace(loader, 1) == Ids{22, 21, 20, 19, -1, 18, 17, 16, -1});
  DataState state = loader.state();
  Ids expected = trace(loader, 5);
  DataLoader resumed(dataset, config(), 0, 1, 3);
  resumed.restore(state);
  CHECK(trace(resumed, 5) == expected);
}

TEST_CASE("a state of other data or another configuration is refused") {
  CountingDataset dataset(23);
  DataLoader loader(dataset, config(), 0, 1);
  trace(loader, 1);
  auto refused = [&](auto change) {
    DataState state = loader.state();
    change(state);
    DataLoader other(dataset, config(), 0, 1);
    try {
      other.restore(state);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string("(no error)");
  };
  CHECK(refused([](DataState&) {}) == "(no error)");
  CHECK_THAT(refused([](DataState& s) { s.dataset_size = 24; }), Contains("had 24"));
  CHECK_THAT(refused([](DataState& s) { s.batch.size = 8; }),
             Contains("train.batch is 7, but the saved run's was 8"));
  CHECK_THAT(refused([](DataState& s) { s.batch.unit = BatchRule::Unit::tokens; }),
             Contains("batches are of 7 samples, but the saved run's of 7 tokens"));
  CHECK_THAT(refused([](DataState& s) { s.seed = 4; }),
             Contains("seed 3, but the saved run's was 4"));
  CHECK_THAT(refused([](DataState& s) { s.position.step = 4; }), Contains("4 steps"));
  CHECK_THAT(refused([](DataState& s) { s.order = {1, 2}; }), Contains("order of 2"));
}

TEST_CASE("an error in a sample reaches the step that needs it, and stays") {
  SamplerConfig in_order{.batch = {.size = 5}, .shuffle = false};
  CountingDataset dataset(23, 17);
  for (int depth : {0, 2}) {
    DataLoader loader(dataset, in_order, 0, 1, depth);
    CHECK(trace(loader, 3).size() == 18);
    CHECK_THROWS_WITH(loader.next_step(), "sample 17 is broken");
    if (depth > 0) CHECK_THROWS_WITH(loader.next_step(), "sample 17 is broken");
  }
}

TEST_CASE("the prefetch queue is bounded and its thread ends when asked") {
  CountingDataset dataset(1000);
  {
    DataLoader loader(dataset, {.batch = {.size = 1}}, 0, 1, 3);
    loader.next_step();
    for (int wait = 0; wait < 200 && dataset.reads < 5; ++wait)
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    CHECK(dataset.reads == 5);  // one taken, three waiting, one in hand
  }
  for (int i = 0; i < 100; ++i) DataLoader(dataset, {.batch = {.size = 1}}, 0, 1, 1);
  CHECK_THROWS_AS(DataLoader(dataset, {}, 0, 1, -1), Error);
  CHECK_THROWS_AS(DataLoader(dataset, {}, 2, 2), Error);
}

TEST_CASE("an evaluation pass sees every sample once with as many batches on every rank") {
  for (int64_t size : {1, 5, 12, 23}) {
    CountingDataset dataset(size);
    for (int ranks = 1; ranks <= 5; ++ranks) {
      for (int64_t rows : {1, 2, 4}) {
        for (int64_t limit : {int64_t{-1}, int64_t{7}, int64_t{100}}) {
          int64_t expected = limit < 0 ? size : std::min(limit, size);
          std::vector<int> seen(size, 0);
          int64_t batches = EvaluationPass(dataset, rows, 0, ranks, limit).batches();
          for (int rank = 0; rank < ranks; ++rank) {
            EvaluationPass pass(dataset, rows, rank, ranks, limit);
            REQUIRE(pass.batches() == batches);
            for (int64_t b = 0; b < batches; ++b) {
              Batch batch = pass.batch(b);
              CHECK(batch.rows <= rows);
              for (int64_t id : batch.sample_ids) {
                // With a limit, the middle of each of so many equal stretches.
                int64_t row = expected == 0 ? 0 : id * expected / size;
                CHECK(id == (2 * row + 1) * size / (2 * expected));
                CHECK(row % ranks == rank);
                ++seen[id];
              }
            }
          }
          CHECK(std::accumulate(seen.begin(), seen.end(), 0) == expected);
          CHECK(std::count(seen.begin(), seen.end(), 1) == expected);
          CHECK(batches == (expected + rows * ranks - 1) / (rows * ranks));
        }
      }
    }
  }
  CountingDataset dataset(3);
  CHECK_THROWS_AS(EvaluationPass(dataset, 0, 0, 1), Error);
  CHECK_THROWS_AS(EvaluationPass(dataset, 1, 0, 1, 0), Error);
  CHECK_THROWS_AS(EvaluationPass(dataset, 1, 0, 1).batch(3), Error);
}
