// What a model gets of a micro-batch, and that those who watch routing learn of which samples it
// is.
#include <map>

#include "tests/support/catch.h"
#include "tests/train/tiny_run.h"
#include "train/batch_tensors.h"

namespace adagate {
namespace {

using namespace tiny;

template <class T>
std::vector<T> values_of(const Tensor& x) {
  return {x.data<T>(), x.data<T>() + x.numel()};
}

// Assignments of each sample in the first MoE layer, by its place in the data set.
class BySample : public RoutingObserver {
 public:
  std::map<int64_t, int64_t> assignments;

  void on_choice(int64_t layer, const RoutingChoice& choice) override {
    if (layer > 0) return;
    const auto* start = choice.selection.row_start.data<int32_t>();
    for (int64_t s = 0; s < choice.rows.samples; ++s) {
      int64_t first = s * choice.rows.sequence;
      assignments[choice.rows.sample_ids.data<int64_t>()[s]] +=
          start[first + choice.rows.sequence] - start[first];
    }
  }
};

std::map<int64_t, int64_t> assignments_of(std::span<const Batch> batches, bool recompute) {
  Scenario s{};
  Mesh mesh = make_self_mesh();
  Decoder model(model_config(s), moe_config(s), mesh);
  ParameterStore store(model, {.master = DType::f64, .compute = DType::f64});
  store.initialize(5);
  AdamW adamw(store, {});
  TrainingStep step(model, kNextToken, store, adamw, mesh,
                    {.seed = 9, .recompute_blocks = recompute});
  BySample by_sample;
  step.routing().observe(by_sample);
  step.run(batches, 0, 0.01, false);
  return by_sample.assignments;
}

}  // namespace

TEST_CASE("batch: its tensors say what the tokens are and where") {
  Samples samples(Scenario{}, 64);
  Batch batch = make_batch(samples, std::vector<int64_t>{40, 7, 12}, std::vector<int64_t>{2, 0, 5});
  CHECK(values_of<int32_t>(tokens_of(batch)) == batch.tokens);
  LossTargets targets = targets_of(batch, 256);
  std::vector<int32_t> all(batch.targets.size(), -1), row = targets.row.to_host<int32_t>();
  auto target = targets.target.to_host<int32_t>();
  for (size_t i = 0; i < row.size(); ++i) all[static_cast<size_t>(row[i])] = target[i];
  CHECK(all == batch.targets);
  TokenRows rows = rows_of(batch);
  CHECK(!rows.packed());
  CHECK(rows.samples == 3);
  CHECK(rows.sequence == batch.sequence);
  CHECK(values_of<int32_t>(rows.lengths) == batch.lengths);
  CHECK(values_of<int64_t>(rows.sample_ids) == std::vector<int64_t>{40, 7, 12});
  std::vector<int64_t> addresses = values_of<int64_t>(rows.addresses);
  CHECK(addresses.at(0) == int64_t{2} << 32);
  CHECK(addresses.at(static_cast<size_t>(2 * batch.sequence + 1)) == (int64_t{5} << 32) + 1);
  CHECK(rows_of(make_batch(samples, {}, {})).rows == 0);
}

TEST_CASE("batch: an observer of the routing learns each sample's choices once") {
  Samples samples(Scenario{}, 64);
  auto part = [&](std::vector<int64_t> ids, std::vector<int64_t> places) {
    return make_batch(samples, ids, places);
  };
  std::vector<Batch> whole = {part({31, 4, 50, 9}, {0, 1, 2, 3})};
  std::vector<Batch> parts = {part({50, 31}, {2, 0}), part({9, 4}, {3, 1})};
  auto expected = assignments_of(whole, false);
  REQUIRE(expected.size() == 4);
  for (auto [id, assignments] : expected) {
    auto length = static_cast<int64_t>(make_sample(Scenario{}, id).ids.size());
    CHECK(assignments >= length);  // one or two experts for each token
    CHECK(assignments <= 2 * length);
  }
  CHECK(assignments_of(whole, true) == expected);
  CHECK(assignments_of(parts, false) == expected);
  CHECK(assignments_of(parts, true) == expected);
}

}  // namespace adagate
