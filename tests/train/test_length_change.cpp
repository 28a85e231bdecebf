// The learning rate of a run that goes on to another length.
#include "tests/support/catch.h"
#include "tests/train/watched_run.h"
#include "train/length_change.h"

namespace adagate {
namespace {

using tiny::steps;

constexpr double kPeak = 0.01;

TrainConfig train_config(double length, const std::string& choice = "rescale") {
  TrainConfig train;
  train.length = steps(length);
  train.optimizer.learning_rate = kPeak;
  train.schedule.warmup = steps(2);
  train.schedule.decay = "linear";
  train.schedule.final_ratio = 0.1;
  train.schedule.on_length_change = choice;
  return train;
}

// Peak and decay over [2, 10) after a rise over 2 steps.
double linear(double t) {
  return kPeak * (1 - 0.9 * t);
}

LengthChange change(double length, const std::string& choice, int64_t step = 10) {
  return change_length(train_config(10), {.end = 10}, train_config(length, choice), step, {});
}

// Rates of steps first, first + 1, ... as the run that goes on has them.
std::vector<double> rates(const LengthChange& changed, double length, int64_t first, int count) {
  LearningRate rate = learning_rate_of(train_config(length), {}, changed.span);
  std::vector<double> all;
  for (int64_t i = first; i < first + count; ++i) all.push_back(rate.at(i));
  return all;
}

void expect(const std::vector<double>& found, const std::vector<double>& expected) {
  REQUIRE(found.size() == expected.size());
  for (size_t i = 0; i < found.size(); ++i) CHECK(found[i] == Approx(expected[i]).epsilon(1e-12));
}

}  // namespace

TEST_CASE("another length: what the rate does then is chosen") {
  double last = linear(7.0 / 8);  // of step 9, the tenth
  LengthChange rescale = change(18, "rescale");
  expect(rates(rescale, 18, 10, 2), {linear(8.0 / 16), linear(9.0 / 16)});
  CHECK(rescale.jump);
  CHECK_THAT(rescale.message,
             Catch::StartsWith("train.length was 10 steps and is 18: ") &&
                 Catch::Contains("the learning rate of step 11 is 0.0055, that of step 10 was "
                                 "0.002125") &&
                 Catch::Contains("continue") && Catch::Contains("constant") &&
                 Catch::Contains("rewarm"));

  LengthChange on = change(18, "continue");
  expect(rates(on, 18, 10, 3), {0.001, 0.001, 0.001});
  CHECK_FALSE(on.jump);

  LengthChange constant = change(18, "constant");
  expect(rates(constant, 18, 10, 3), {last, last, last});

  // Two steps up to the peak, six down to a tenth of it.
  LengthChange rewarm = change(18, "rewarm");
  expect(rates(rewarm, 18, 10, 9),
         {(last + kPeak) / 2, kPeak, kPeak, linear(1.0 / 6), linear(2.0 / 6), linear(3.0 / 6),
          linear(4.0 / 6), linear(5.0 / 6), linear(1)});
}

TEST_CASE("another length: on the way, shorter, and none at all") {
  for (const char* choice : {"rescale", "continue", "constant", "rewarm"}) {
    CAPTURE(choice);
    LengthChange none = change(10, choice, 6);
    CHECK(none.span == ScheduleSpan{.end = 10});
    CHECK(none.message.empty());
  }
  expect(rates(change(8, "rescale", 6), 8, 6, 2), {linear(4.0 / 6), linear(5.0 / 6)});
  CHECK(change(8, "rescale", 6).jump);
  expect(rates(change(8, "continue", 6), 8, 6, 2), {linear(4.0 / 8), linear(5.0 / 8)});
  CHECK(change(8, "continue", 6).message.empty());
  expect(rates(change(8, "constant", 6), 8, 6, 2), {linear(3.0 / 8), linear(3.0 / 8)});
  // Nothing is left to train.
  CHECK(change(5, "rescale", 6).message.empty());
  CHECK(change(5, "rescale", 6).span == ScheduleSpan{.end = 10});
}

TEST_CASE("another length: where the rate does not change there is nothing to say") {
  TrainConfig before = train_config(10), now = train_config(20);
  before.schedule.decay = now.schedule.decay = "constant";
  LengthChange changed = change_length(before, {.end = 10}, now, 10, {});
  CHECK(changed.message.empty());
  CHECK(changed.span == ScheduleSpan{.end = 20});
}

TEST_CASE("another length: once changed, the schedule stays over further stops") {
  ScheduleSpan warm = change(18, "rewarm").span, held = change(18, "constant").span;
  // The same length again, whatever would be chosen for another.
  for (const char* choice : {"rescale", "continue", "constant", "rewarm"})
    for (const ScheduleSpan& span : {warm, held}) {
      LengthChange again = change_length(train_config(18), span, train_config(18, choice), 12, {});
      CHECK(again.span == span);
      CHECK(again.message.empty());
    }
  // Stretched once more, the rise stays where it was.
  LengthChange stretched = change_length(train_config(18), warm, train_config(26), 18, {});
  CHECK(stretched.span == ScheduleSpan{.first = 10, .from = warm.from, .end = 26});
  // A held rate ends where a schedule is given.
  CHECK(change_length(train_config(18), held, train_config(26), 18, {}).span ==
        ScheduleSpan{.end = 26});
  TrainConfig other = train_config(18);
  other.optimizer.learning_rate = 0.02;
  CHECK(change_length(train_config(18), held, other, 12, {}).span == ScheduleSpan{.end = 18});
}

TEST_CASE("another length: a run stopped after it goes on bit for bit") {
  for (const std::string choice : {"rescale", "continue", "constant", "rewarm"}) {
    CAPTURE(choice);
    TempFolder folder;
    RunConfig config = tiny::run_config(folder, 400);
    config.train = train_config(4);
    config.train.batch = 2;
    config.train.evaluate_every = steps(0);
    config.checkpoint.save_at_end = true;
    tiny::watch(config);
    config.checkpoint.every = steps(3);
    config.checkpoint.keep = 0;
    config.checkpoint.resume = config.output;
    config.train.length = steps(9);
    config.train.schedule.on_length_change = choice;
    config.output = folder.path("whole");
    tiny::Watcher whole = tiny::watch(config);
    REQUIRE(whole.steps.size() == 5);
    // From the checkpoint between, without the word.
    config.checkpoint.resume = folder.path("whole/checkpoints/step-00000006");
    config.train.schedule.on_length_change = "rescale";
    config.output = folder.path("parts");
    tiny::Watcher parts = tiny::watch(config);
    REQUIRE(parts.steps.size() == 3);
    for (size_t i = 0; i < 3; ++i) {
      CHECK(parts.steps[i].learning_rate == whole.steps[i + 2].learning_rate);
      CHECK(parts.steps[i].result.loss == whole.steps[i + 2].result.loss);
    }
  }
}

}  // namespace adagate
