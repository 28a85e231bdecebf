// How an epoch's samples are gathered into steps, by their number or by their tokens.
#include <numeric>
#include <set>

#include "core/base/error.h"
#include "data/data_loader.h"
#include "tests/support/catch.h"

namespace adagate {
namespace {

using Ids = std::vector<int64_t>;
using Catch::Contains;
constexpr auto kTokens = BatchRule::Unit::tokens;

std::vector<Ids> steps_of(const EpochPlan& plan, const Ids& order) {
  std::vector<Ids> steps;
  for (int64_t s = 0; s < plan.steps(); ++s)
    steps.emplace_back(order.begin() + plan.first(s), order.begin() + plan.first(s + 1));
  return steps;
}

// Sample i has 1 + i * 7 % 5 tokens: 1 3 5 2 4 1 3 ...
class UnevenDataset : public Dataset {
 public:
  explicit UnevenDataset(int64_t size) : size_(size) {}
  int64_t size() const override { return size_; }
  Sample get(int64_t id) const override {
    std::vector<int32_t> ids(static_cast<size_t>(1 + id * 7 % 5), static_cast<int32_t>(id));
    return {ids, ids};
  }

 private:
  int64_t size_;
};

SampleLengths lengths_of(int64_t size) {
  auto lengths = std::make_shared<std::vector<int32_t>>();
  for (int64_t i = 0; i < size; ++i) lengths->push_back(static_cast<int32_t>(1 + i * 7 % 5));
  return lengths;
}

SamplerConfig by_tokens(int64_t size, bool shuffle = true) {
  return {.seed = 3, .batch = {kTokens, size}, .accumulation = 2, .shuffle = shuffle};
}

}  // namespace

TEST_CASE("plan: by samples, the last step smaller or left out") {
  Ids order = {4, 2, 0, 1, 3};
  CHECK(steps_of(plan_epoch(order, {}, {.size = 2}), order) ==
        std::vector<Ids>{{4, 2}, {0, 1}, {3}});
  EpochPlan whole = plan_epoch(order, {}, {.size = 2, .drop_last = true});
  CHECK(steps_of(whole, order) == std::vector<Ids>{{4, 2}, {0, 1}});
  CHECK(whole.samples() == 4);
  CHECK(plan_epoch(order, {}, {.size = 5, .drop_last = true}).steps() == 1);
  CHECK(plan_epoch({}, {}, {.size = 2}).steps() == 0);
}

TEST_CASE("plan: by tokens, as many as fit in the order, a longer one alone, never none") {
  std::vector<int32_t> lengths = {3, 9, 2, 4, 1, 0};
  Ids order = {0, 2, 4, 1, 5, 3};
  auto with = [&](int64_t size) {
    return steps_of(plan_epoch(order, lengths, {kTokens, size}), order);
  };
  CHECK(with(6) == std::vector<Ids>{{0, 2, 4}, {1}, {5, 3}});
  CHECK(with(5) == std::vector<Ids>{{0, 2}, {4}, {1}, {5, 3}});
  CHECK(with(9) == std::vector<Ids>{{0, 2, 4}, {1, 5}, {3}});
  CHECK(with(1) == std::vector<Ids>{{0}, {2}, {4}, {1}, {5}, {3}});
  CHECK(with(100) == std::vector<Ids>{order});
  EpochPlan plan = plan_epoch(order, lengths, {kTokens, 6});
  CHECK(plan.samples() == 6);
  CHECK(plan.step_at(0) == 0);
  CHECK(plan.step_at(3) == 1);
  CHECK(plan.step_at(1) == -1);
  CHECK(plan.step_at(6) == 3);
}

TEST_CASE("sampler: batches by tokens are the same on every number of ranks") {
  constexpr int64_t kSize = 23, kMost = 9;
  Sampler reference(by_tokens(kMost), kSize, lengths_of(kSize));
  std::vector<int64_t> steps;
  for (int64_t epoch = 0; epoch < 6; ++epoch) {
    steps.push_back(reference.steps_in(epoch));
    Ids order = shuffled_order(3, epoch, kSize), seen;
    for (DataPosition at{epoch, 0}; at.epoch == epoch; at = reference.after(at)) {
      Ids global = reference.global_batch(at);
      REQUIRE(!global.empty());
      int64_t tokens = 0;
      for (int64_t id : global) tokens += (*lengths_of(kSize))[static_cast<size_t>(id)];
      CHECK(tokens <= kMost);
      // The next one would not have fitted.
      if (seen.size() + global.size() < order.size()) {
        int64_t next = order[seen.size() + global.size()];
        CHECK(tokens + (*lengths_of(kSize))[static_cast<size_t>(next)] > kMost);
      }
      CHECK(reference.consumed_samples(at) == epoch * kSize + static_cast<int64_t>(seen.size()));
      CHECK(reference.position_at(reference.consumed_samples(at)) == at);
      for (int ranks = 1; ranks <= 4; ++ranks) {
        Ids dealt(global.size(), -1);
        for (int rank = 0; rank < ranks; ++rank)
          for (const BatchRows& rows : reference.micro_batches(at, rank, ranks))
            for (size_t i = 0; i < rows.places.size(); ++i)
              dealt.at(static_cast<size_t>(rows.places[i])) = rows.sample_ids[i];
        CHECK(dealt == global);
      }
      seen.insert(seen.end(), global.begin(), global.end());
    }
    CHECK(seen == order);
  }
  CHECK(std::set<int64_t>(steps.begin(), steps.end()).size() > 1);  // epochs do differ
  // Steps ahead are known without going there.
  Sampler ahead(by_tokens(kMost), kSize, lengths_of(kSize));
  for (int64_t epoch : {5, 2, 0, 5})
    CHECK(ahead.steps_in(epoch) == steps[static_cast<size_t>(epoch)]);
  CHECK_THROWS_WITH(reference.global_batch({1, steps[1]}), Contains("there is no step"));
  CHECK_THROWS_AS(reference.position_at(-1), Error);
}

TEST_CASE("sampler: batches by tokens follow an explicit order, in every epoch alike") {
  Sampler sampler(by_tokens(5), 4, lengths_of(4));  // 1 3 5 2
  int64_t shuffled = sampler.steps_in(7);
  sampler.set_order({0, 1, 2, 3});
  CHECK(sampler.steps_in(0) == 3);
  sampler.set_order({1, 3, 2, 0});
  for (int64_t epoch : {0, 7}) {
    CHECK(sampler.steps_in(epoch) == 3);
    CHECK(sampler.global_batch({epoch, 0}) == Ids{1, 3});
    CHECK(sampler.global_batch({epoch, 2}) == Ids{0});
  }
  sampler.set_order({});
  CHECK(sampler.steps_in(7) == shuffled);
  Sampler plain(by_tokens(5, false), 4, lengths_of(4));
  CHECK(plain.global_batch({3, 0}) == Ids{0, 1});
}

TEST_CASE("sampler: batches by tokens need lengths, and drop none") {
  CHECK_THROWS_WITH(Sampler(by_tokens(5), 4), Contains("need the length of each of 4 samples"));
  CHECK_THROWS_WITH(Sampler(by_tokens(5), 4, lengths_of(3)), Contains("each of 4 samples"));
  SamplerConfig dropping = by_tokens(5);
  dropping.batch.drop_last = true;
  CHECK_THROWS_WITH(Sampler(dropping, 4, lengths_of(4)), Contains("keep it"));
}

TEST_CASE("data loader: batches by tokens go on exactly, on other rank counts too") {
  UnevenDataset dataset(23);
  auto global_of = [](std::vector<std::unique_ptr<DataLoader>>& ranks) {
    Ids global(64, -1);
    for (auto& loader : ranks)
      for (const Batch& batch : loader->next_step())
        for (int64_t row = 0; row < batch.rows; ++row)
          global.at(static_cast<size_t>(batch.places[row])) = batch.sample_ids[row];
    std::erase(global, -1);
    return global;
  };
  auto loaders = [&](int ranks, const DataState* state) {
    std::vector<std::unique_ptr<DataLoader>> all;
    for (int rank = 0; rank < ranks; ++rank) {
      all.push_back(std::make_unique<DataLoader>(dataset, by_tokens(9), rank, ranks, rank % 3));
      if (state) all.back()->restore(*state);
    }
    return all;
  };
  auto whole = loaders(1, nullptr);
  SampleLengths lengths = lengths_of(23);
  CHECK(whole[0]->tokens_per_epoch() ==
        std::accumulate(lengths->begin(), lengths->end(), int64_t{0}));
  std::vector<DataState> states;
  std::vector<Ids> batches;
  for (int step = 0; step < 30; ++step) {
    states.push_back(whole[0]->state());
    batches.push_back(global_of(whole));
  }
  REQUIRE(states.back().position.epoch >= 2);
  // The steps of what is over are those that were taken.
  const DataState& last = states.back();
  REQUIRE(static_cast<int64_t>(last.epoch_steps.size()) == last.position.epoch);
  CHECK(std::accumulate(last.epoch_steps.begin(), last.epoch_steps.end(), int64_t{0}) +
            last.position.step ==
        29);
  for (size_t stop = 0; stop < states.size(); stop += 4)
    for (int ranks : {1, 3}) {
      auto resumed = loaders(ranks, &states[stop]);
      for (size_t step = stop; step < batches.size(); ++step)
        REQUIRE(global_of(resumed) == batches[step]);
      CHECK(resumed[0]->state().epoch_steps == whole[0]->state().epoch_steps);
    }
  DataState other = states[20];
  other.epoch_steps.clear();
  CHECK_THROWS_WITH(loaders(1, &other), Contains("tells the steps of 0 epochs before"));
}

}  // namespace adagate
