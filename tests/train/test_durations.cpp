// Durations in steps, tokens and epochs where epochs differ in steps.
#include "tests/support/catch.h"
#include "train/config/duration.h"

namespace adagate {
namespace {

// Epochs of 3, 5, 4, 4, 4, ... steps and 100 tokens.
StepSizes uneven() {
  auto steps_in = [](int64_t epoch) -> int64_t { return epoch == 0 ? 3 : epoch == 1 ? 5 : 4; };
  return {.tokens_per_step = 1000, .steps_per_epoch = 1000, .uneven = UnevenEpochs{100, steps_in}};
}

int64_t steps(const std::string& word) {
  return Duration::parse(word).steps(uneven());
}

std::vector<int64_t> due(const std::string& word, int64_t last) {
  std::vector<int64_t> all;
  for (int64_t step = 1; step <= last; ++step)
    if (times_due(Duration::parse(word), uneven(), step, step)) all.push_back(step);
  return all;
}

}  // namespace

TEST_CASE("durations: epochs of different lengths are counted one by one") {
  CHECK(steps("7s") == 7);
  CHECK(steps("0e") == 0);
  CHECK(steps("1e") == 3);
  CHECK(steps("2e") == 8);
  CHECK(steps("3e") == 12);
  CHECK(steps("0.5e") == 2);  // of 1.5
  CHECK(steps("1.5e") == 6);  // 3 and 2.5
  CHECK(steps("1.2e") == 4);  // 3 and 1: a fifth of five
  CHECK(steps("2.25e") == 9);
  CHECK(steps("100t") == 3);
  CHECK(steps("150t") == 6);
  CHECK(steps("200t") == 8);
  CHECK(steps("201t") == 9);
  // Far ahead no epoch is planned any more: further ones count as the first.
  CHECK(steps("1000e") == 4 * 1000);
  CHECK(steps("1002e") == 4 * 1000 + 2 * 3);
  CHECK(steps("1000000000000e") == int64_t{3000000001000});
}

TEST_CASE("durations: what comes every so often keeps to the epochs") {
  CHECK(due("1e", 20) == std::vector<int64_t>{3, 8, 12, 16, 20});
  CHECK(due("2e", 20) == std::vector<int64_t>{8, 16});
  CHECK(due("0.5e", 12) == std::vector<int64_t>{2, 3, 6, 8, 10, 12});
  CHECK(due("100t", 12) == std::vector<int64_t>{3, 8, 12});
  CHECK(due("0.01e", 5) == std::vector<int64_t>{1, 2, 3, 4, 5});
  CHECK(due("5s", 12) == std::vector<int64_t>{5, 10});
  CHECK(due("0e", 12).empty());
  CHECK(times_due(Duration::parse("1e"), uneven(), 3, 12) == 3);
  CHECK(times_due(Duration::parse("1e"), uneven(), 4, 7) == 0);
  CHECK(times_due(Duration::parse("0.01e"), uneven(), 1, 5) == 5);
  CHECK(times_due(Duration::parse("1e"), uneven(), 5, 4) == 0);
}

TEST_CASE("durations: where epochs are alike, every so many steps") {
  StepSizes sizes{.tokens_per_step = 16, .steps_per_epoch = 3};
  auto count = [&](const char* word, int64_t first, int64_t last) {
    return times_due(Duration::parse(word), sizes, first, last);
  };
  CHECK(count("2s", 1, 7) == 3);
  CHECK(count("2s", 4, 4) == 1);
  CHECK(count("0.5e", 1, 6) == 3);  // of two steps each
  CHECK(count("1t", 1, 6) == 6);
  CHECK(count("0s", 1, 6) == 0);
}

}  // namespace adagate
