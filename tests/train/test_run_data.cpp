// Which samples a run trains on and is evaluated on, in which order and for how long.
#include <cstring>
#include <numeric>

#include "models/decoder.h"
#include "models/weights.h"
#include "tests/support/catch.h"
#include "tests/train/watched_run.h"

namespace adagate {
namespace {

using namespace tiny;

// 43 targets: samples 0 to 4 have 8, sample 5 has 3.
constexpr int64_t kSamples = 6;

// The configuration of a run that changes nothing: it measures samples.
RunConfig measuring_config(const TempFolder& folder) {
  RunConfig config = run_config(folder);
  config.train.optimizer.learning_rate = 0;
  return config;
}

}  // namespace

TEST_CASE("run: samples come in the order of the text, or as seed and epoch draw them") {
  TempFolder folder;
  RunConfig config = measuring_config(folder);
  config.train.batch = 1;
  config.train.length = {2, Duration::Unit::epochs};
  std::vector<double> alone;  // the loss of each sample
  {
    WatchedRun first(config);
    export_weights(folder.path() / "weights.safetensors", first.trainer.store().parameters(),
                   first.trainer.mesh());
    auto data = samples_of(config.data.train, folder);
    REQUIRE(data->size() == kSamples);
    for (int64_t i = 0; i < kSamples; ++i)
      alone.push_back(evaluate_range(first.trainer.model(), *data, i, 1).loss());
  }
  for (size_t i = 0; i < alone.size(); ++i)
    for (size_t j = 0; j < i; ++j) REQUIRE(std::abs(alone[i] - alone[j]) > 1e-4);

  config.checkpoint.initial_weights = folder.path("weights.safetensors");
  for (bool shuffle : {false, true})
    for (int64_t seed : {1, 2}) {
      INFO("shuffle " << shuffle << ", seed " << seed);
      config.data.shuffle = shuffle;
      config.seed = seed;
      std::vector<double> losses = watch(config).losses();
      REQUIRE(losses.size() == 2 * kSamples);
      for (int64_t epoch = 0; epoch < 2; ++epoch) {
        std::vector<int64_t> order(kSamples);
        std::iota(order.begin(), order.end(), 0);
        if (shuffle) order = shuffled_order(static_cast<uint64_t>(seed), epoch, kSamples);
        for (int64_t i = 0; i < kSamples; ++i)
          CHECK(losses[static_cast<size_t>(epoch * kSamples + i)] ==
                Approx(alone[static_cast<size_t>(order[static_cast<size_t>(i)])]).epsilon(1e-12));
      }
    }
}

TEST_CASE("run: an epoch's last batch is smaller or left out, and counted as it is") {
  TempFolder folder;
  RunConfig config = measuring_config(folder);
  config.train.batch = 4;
  config.train.length = {2, Duration::Unit::epochs};
  config.data.shuffle = false;
  {
    WatchedRun kept(config);
    kept.run();
    CHECK(kept.seen.samples() == std::vector<int64_t>{4, 2, 4, 2});
    CHECK(kept.trainer.state().consumed_samples == 12);
    CHECK(kept.trainer.state().consumed_tokens == 2 * 43);
    std::vector<int64_t> epochs, tokens;
    for (const StepReport& step : kept.seen.steps) {
      epochs.push_back(step.epoch);
      tokens.push_back(step.consumed_tokens);
    }
    CHECK(epochs == std::vector<int64_t>{0, 0, 1, 1});
    CHECK(tokens == std::vector<int64_t>{32, 43, 75, 86});
  }
  config.data.keep_last_batch = false;
  WatchedRun dropped(config);
  dropped.run();
  CHECK(dropped.seen.samples() == std::vector<int64_t>{4, 4});
  CHECK(dropped.trainer.state().consumed_samples == 8);
  CHECK(dropped.trainer.state().consumed_tokens == 64);
}

TEST_CASE("run: durations in tokens and epochs are those of the global batch") {
  TempFolder folder;
  RunConfig config = run_config(folder);
  config.data.validation_share = 0.01;                 // one sample; five are left
  config.train.batch = 2;                              // 16 tokens; three steps an epoch
  config.train.length = {97, Duration::Unit::tokens};  // 6.06 steps
  config.train.evaluate_every = {32, Duration::Unit::tokens};
  config.train.schedule.warmup = {64, Duration::Unit::tokens};
  config.train.optimizer.learning_rate = 0.5;
  config.checkpoint.every = {1, Duration::Unit::epochs};
  config.checkpoint.keep = 0;
  Watcher seen = watch(config);
  std::vector<double> rates;
  for (const StepReport& step : seen.steps) {
    rates.push_back(step.learning_rate);
    CHECK(step.total_steps == 7);
  }
  CHECK(rates == std::vector<double>{0.125, 0.25, 0.375, 0.5, 0.5, 0.5, 0.5});
  std::vector<int64_t> evaluated;
  for (const EvaluationReport& report : seen.evaluations) evaluated.push_back(report.step);
  CHECK(evaluated == std::vector<int64_t>{2, 4, 6, 7});  // the last step in any case
  CHECK(seen.saved == std::vector<int64_t>{3, 6});
}

TEST_CASE("run: evaluations take the held-out end, or the validation text, and so many samples") {
  TempFolder folder;
  RunConfig config = measuring_config(folder);
  config.train.evaluate_every = steps(3);
  std::string other = folder.write("other.txt", letters(30, 2));  // 8, 8, 8 and 6 targets
  auto whole = samples_of(config.data.train, folder), others = samples_of(other, folder);
  auto expect = [&](const Dataset& data, int64_t first, int64_t count) {
    WatchedRun run(config);
    run.run();
    REQUIRE(run.seen.evaluations.size() == 1);
    const EvaluationReport& found = run.seen.evaluations[0];
    EvaluationResult expected = evaluate_range(run.trainer.model(), data, first, count);
    CHECK(found.loss() == expected.loss());
    CHECK(found.targets == expected.targets);
    return found.targets;
  };
  config.data.validation_share = 0.4;
  CHECK(expect(*whole, 4, 2) == 8 + 3);
  config.train.evaluate_samples = 1;
  CHECK(expect(*whole, 5, 1) == 3);  // from the middle on
  config.data.validation_share = 0;
  config.data.validation = other;
  CHECK(expect(*others, 2, 1) == 8);
  config.train.evaluate_samples = 0;
  CHECK(expect(*others, 0, 4) == 30);
}

TEST_CASE("run: the held-out samples are not trained on") {
  TempFolder folder;
  RunConfig config = measuring_config(folder);
  config.data.validation_share = 0.4;
  config.train.batch = 1;
  config.train.length = {1, Duration::Unit::epochs};
  CHECK(watch(config).steps.size() == kSamples - 2);
}

TEST_CASE("run: the seed draws the initial weights") {
  TempFolder folder;
  RunConfig config = run_config(folder);
  config.model.vocabulary = 257;
  for (int64_t seed : {1, 2}) {
    config.seed = seed;
    Decoder model(config.model, config.moe, make_self_mesh());
    ParameterStore store(model, {});
    store.initialize(static_cast<uint64_t>(seed));
    WatchedRun run(config);
    REQUIRE(run.trainer.store().parameters().size() == store.parameters().size());
    for (Parameter* p : store.parameters()) {
      INFO("seed " << seed << ", " << p->name());
      const Tensor& mine = run.trainer.store().find(p->name())->master();
      CHECK(std::memcmp(mine.raw(), p->master().raw(), mine.bytes()) == 0);
    }
  }
}

TEST_CASE("run: precision bf16 computes in bf16 from the same fp32 weights") {
  TempFolder folder;
  RunConfig config = measuring_config(folder);
  std::vector<double> exact = watch(config).losses();
  config.precision = "bf16";
  WatchedRun run(config);
  run.run();
  const Parameter* weight = run.trainer.store().find("blocks.0.attention.qkv.weight");
  CHECK(weight->master().dtype() == DType::f32);
  CHECK(weight->tensor().dtype() == DType::bf16);
  std::vector<double> rounded = run.seen.losses();
  for (size_t i = 0; i < exact.size(); ++i) {
    CHECK(rounded[i] != exact[i]);
    CHECK(rounded[i] == Approx(exact[i]).epsilon(0x1p-7));
  }
}

TEST_CASE("run: the vocabulary is the tokenizer's or larger") {
  TempFolder folder;
  RunConfig config = run_config(folder);
  for (auto [asked, rows] : {std::pair{0, 257}, {257, 257}, {300, 300}}) {
    config.model.vocabulary = asked;
    WatchedRun run(config);
    CHECK(run.trainer.config().model.vocabulary == rows);
    CHECK(run.trainer.store().find("embedding.tokens")->master().shape()[0] == rows);
  }
  config.model.vocabulary = 256;
  CHECK_THROWS_WITH(WatchedRun(config), Catch::Contains("model.vocabulary is 256") &&
                                            Catch::Contains("has 257 tokens"));
}

TEST_CASE("text: tokens are kept by the text's content, not by its name or size") {
  TempFolder folder;
  auto text_of = [](const TokenDataset& data) {
    std::vector<int32_t> ids(static_cast<size_t>(data.view().size() - 1));  // without its end
    data.view().read(0, ids);
    return ByteTokenizer().decode(ids);
  };
  std::string path = folder.write("text.txt", "one fine day");
  CHECK(text_of(*samples_of(path, folder)) == "one fine day");
  folder.write("text.txt", "one fine dog");
  CHECK(text_of(*samples_of(path, folder)) == "one fine dog");
  folder.write("text.txt", "one fine day");
  CHECK(text_of(*samples_of(path, folder)) == "one fine day");
  size_t files = 0;
  for ([[maybe_unused]] auto& file : std::filesystem::directory_iterator(folder.path() / "tokens"))
    ++files;
  CHECK(files == 2);  // the first text was not tokenized again
}

}  // namespace adagate
