// The learning rate against the rates of the reference runs and by hand.
#include "tests/support/catch.h"
#include "tests/support/reference_fixture.h"
#include "train/config/duration.h"
#include "train/learning_rate.h"

namespace adagate::test {

TEST_CASE("learning rate: warm-up and cosine as in the reference runs") {
  for (const std::string name : {"gpt2", "gpt2_moe"}) {
    ReferenceFixture fixture(name);
    const auto& train = fixture.json().at("config").at("train");
    const auto& schedule = train.at("schedule");
    auto steps = [](const nlohmann::json& duration) {
      return Duration::parse(duration.get<std::string>()).steps({});
    };
    LearningRate rate(train.at("optimizer").at("learning_rate").get<double>(),
                      steps(schedule.at("warmup")), steps(train.at("length")),
                      schedule.at("decay").get<std::string>(),
                      schedule.at("final_ratio").get<double>());
    const auto& expected = fixture.json().at("train").at("learning_rates");
    REQUIRE(expected.size() >= 10);
    for (size_t step = 0; step < expected.size(); ++step)
      CHECK(rate.at(static_cast<int64_t>(step)) ==
            Approx(expected[step].get<double>()).epsilon(1e-12));
  }
}

TEST_CASE("learning rate: linear, constant, no warm-up, past the end") {
  LearningRate linear(2.0, 0, 4, "linear", 0.5);
  CHECK(linear.at(0) == 2.0);
  CHECK(linear.at(1) == 1.75);
  CHECK(linear.at(4) == 1.0);
  CHECK(linear.at(100) == 1.0);
  LearningRate constant(2.0, 2, 4, "constant", 0.5);
  CHECK(constant.at(0) == 1.0);
  CHECK(constant.at(1) == 2.0);
  CHECK(constant.at(3) == 2.0);
  LearningRate cosine(2.0, 0, 4, "cosine", 0.5);
  CHECK(cosine.at(2) == Approx(1.5));
  CHECK(cosine.at(4) == Approx(1.0));
}

}  // namespace adagate::test
