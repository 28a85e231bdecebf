// Runs with batches by tokens, whose epochs differ in steps: lengths, schedules and what is due
// keep to the epochs, on any number of ranks, stopped or not.
#include <numeric>

#include "parallel/thread_communicator.h"
#include "tests/support/catch.h"
#include "tests/support/message_of.h"
#include "tests/train/watched_run.h"

namespace adagate {
namespace {

using namespace tiny;

// The ten windows of letters(80), each cut to its first 1 4 7 2 5 8 3 6 1 4 tokens. In steps of up
// to 12 tokens they make four steps or five.
constexpr size_t kText = 80;
constexpr int64_t kSamples = 10, kTokens = 41;
constexpr BatchRule kRule{BatchRule::Unit::tokens, 12};

class CutSamples final : public Dataset {
 public:
  explicit CutSamples(const Dataset& windows) : windows_(windows) {}
  int64_t size() const override { return windows_.size(); }
  int64_t length(int64_t id) const override { return 1 + 3 * id % 8; }
  Sample get(int64_t id) const override {
    Sample sample = windows_.get(id);
    sample.ids.resize(static_cast<size_t>(length(id)));
    sample.targets.resize(static_cast<size_t>(length(id)));
    return sample;
  }

 private:
  const Dataset& windows_;
};

TrainerOptions options_with(const BatchRule& rule) {
  TrainerOptions options{.batch = rule};
  options.samples = [](const Dataset& windows) { return std::make_unique<CutSamples>(windows); };
  return options;
}

EpochPlan plan_of(const std::vector<int64_t>& order) {
  std::vector<int32_t> lengths = {1, 4, 7, 2, 5, 8, 3, 6, 1, 4};
  return plan_epoch(order, lengths, kRule);
}

int64_t shuffled_steps(int64_t epoch) {
  return plan_of(shuffled_order(1, epoch, kSamples)).steps();
}

Duration epochs(double n) {
  return {n, Duration::Unit::epochs};
}

RunConfig uneven_config(const TempFolder& folder, const std::string& name, Duration length) {
  RunConfig config = run_config(folder, kText);
  config.train.length = length;
  config.train.schedule.warmup = epochs(1);
  config.train.schedule.decay = "linear";
  config.checkpoint.keep = 0;
  config.output = folder.path(name);
  return config;
}

struct Told {
  std::vector<double> losses, rates;
  std::vector<int64_t> samples, total_steps, saved, evaluated, epochs;
};

Told train_on(int ranks, const RunConfig& config, const EpochHook& hook = {}) {
  Told told;
  run_ranks(ranks, [&](std::shared_ptr<Communicator> world) {
    bool first = world->rank() == 0;
    Watcher seen;
    Trainer trainer(config, options_with(kRule), world);
    trainer.observe(seen);
    if (hook) trainer.at_epoch_start(hook);
    trainer.run();
    if (!first) return;
    told.losses = seen.losses();
    told.samples = seen.samples();
    told.saved = seen.saved;
    for (const StepReport& step : seen.steps) {
      told.rates.push_back(step.learning_rate);
      told.total_steps.push_back(step.total_steps);
      told.epochs.push_back(step.epoch);
    }
    for (const EvaluationReport& report : seen.evaluations) told.evaluated.push_back(report.step);
  });
  return told;
}

// Steps up to the end of each of the first epochs.
std::vector<int64_t> ends_of(int64_t epochs) {
  std::vector<int64_t> ends;
  for (int64_t e = 0; e < epochs; ++e)
    ends.push_back((ends.empty() ? 0 : ends.back()) + shuffled_steps(e));
  return ends;
}

// Of four steps in even epochs, of five in odd ones.
std::vector<int64_t> order_by_parity(int64_t epoch) {
  std::vector<int64_t> order(kSamples);
  std::iota(order.begin(), order.end(), 0);
  if (epoch % 2) std::rotate(order.begin(), order.begin() + 2, order.end());
  return order;
}

// From each step on that was saved, the run goes on as it was; to the bit on as many ranks.
void expect_same_from_everywhere(const TempFolder& folder, const RunConfig& config,
                                 const Told& whole, int ranks, const EpochHook& hook) {
  for (size_t step : whole.saved) {
    if (step == whole.losses.size()) continue;
    INFO("gone on from step " << step << " on " << ranks);
    RunConfig again = config;
    again.checkpoint.resume = fmt::format("{}/checkpoints/{}", config.output, step_name(step));
    again.output = folder.path(fmt::format("again{}{}", step, ranks));
    Told tail = train_on(ranks, again, hook);
    auto rest = [&](const auto& all) { return std::vector(all.begin() + step, all.end()); };
    CHECK(tail.rates == rest(whole.rates));
    CHECK(tail.total_steps == rest(whole.total_steps));
    CHECK(tail.samples == rest(whole.samples));
    CHECK(tail.epochs == rest(whole.epochs));
    REQUIRE(tail.losses.size() == whole.losses.size() - step);
    for (size_t i = 0; i < tail.losses.size(); ++i)
      CHECK(tail.losses[i] == Approx(whole.losses[step + i]).epsilon(1e-6));
    if (ranks == 1) CHECK(tail.losses == rest(whole.losses));
  }
}

}  // namespace

TEST_CASE("uneven epochs: lengths and schedules are those of the epochs as they come") {
  TempFolder folder;
  std::vector<int64_t> ends = ends_of(6);
  REQUIRE(ends[5] != 6 * ends[0]);  // the first epoch does not stand for all
  RunConfig config = uneven_config(folder, "run", epochs(6));
  config.train.evaluate_every = epochs(1);
  config.data.validation = config.data.train;
  config.checkpoint.every = epochs(2);
  Told told = train_on(1, config);
  std::vector<int64_t> samples;
  for (int64_t epoch = 0; epoch < 6; ++epoch) {
    EpochPlan plan = plan_of(shuffled_order(1, epoch, kSamples));
    for (int64_t s = 0; s < plan.steps(); ++s) samples.push_back(plan.first(s + 1) - plan.first(s));
  }
  CHECK(told.samples == samples);
  CHECK(told.total_steps == std::vector<int64_t>(static_cast<size_t>(ends[5]), ends[5]));
  CHECK(told.evaluated == ends);
  CHECK(told.saved == std::vector<int64_t>{ends[1], ends[3]});
  LearningRate rate(0.01, ends[0], ends[5], "linear", 0.1);
  for (size_t i = 0; i < told.rates.size(); ++i)
    CHECK(told.rates[i] == rate.at(static_cast<int64_t>(i)));
  // Parts of epochs, and tokens.
  auto steps_of = [&](Duration length) {
    config.train.length = length;
    config.output = folder.path(length.text());
    return static_cast<int64_t>(train_on(1, config).losses.size());
  };
  CHECK(steps_of(epochs(1.5)) == ends[0] + (shuffled_steps(1) + 1) / 2);
  CHECK(steps_of({3.0 * kTokens, Duration::Unit::tokens}) == ends[2]);
}

TEST_CASE("uneven epochs: a run that is stopped anywhere goes on as it was, on any ranks") {
  TempFolder folder;
  RunConfig config = uneven_config(folder, "run", epochs(3));
  config.checkpoint.every = steps(1);
  Told whole = train_on(1, config);
  REQUIRE(whole.saved.size() + 1 == whole.losses.size());
  for (int ranks : {1, 2}) expect_same_from_everywhere(folder, config, whole, ranks, {});
}

TEST_CASE("uneven epochs: with orders of a hook the length is planned anew, alike after a stop") {
  TempFolder folder;
  RunConfig config = uneven_config(folder, "run", epochs(4));
  config.checkpoint.every = steps(1);
  Told whole = train_on(1, config, order_by_parity);
  // Of each epoch on the order that is known stands for those to come.
  std::vector<int64_t> planned;
  for (auto [steps, total] :
       {std::pair{4, 4 * 4}, {5, 4 + 3 * 5}, {4, 4 + 5 + 2 * 4}, {5, 4 + 5 + 4 + 5}})
    planned.insert(planned.end(), static_cast<size_t>(steps), total);
  CHECK(whole.total_steps == planned);
  for (int ranks : {1, 2})
    expect_same_from_everywhere(folder, config, whole, ranks, order_by_parity);
}

TEST_CASE("uneven epochs: batches are counted as in the saved run") {
  TempFolder folder;
  RunConfig config = uneven_config(folder, "run", epochs(2));
  config.checkpoint.save_at_end = true;
  train_on(1, config);
  config.checkpoint.resume = "auto";
  config.train.length = epochs(3);
  for (auto [rule, now] : {std::pair{BatchRule{.size = 2}, "2 samples"},
                           {BatchRule{BatchRule::Unit::tokens, 13}, "13 tokens"}})
    CHECK_THAT(
        message_of([&] { Trainer(config, options_with(rule), make_self_mesh().world); }),
        Catch::Contains(fmt::format(
            "batches are of {}, but the saved run's of 12 tokens: resume with the same", now)));
}

}  // namespace adagate
