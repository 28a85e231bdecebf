// An order of the samples that a run is given: saved, gone on with on other ranks, asked for once
// for every epoch.
#include <algorithm>
#include <mutex>
#include <numeric>

#include "parallel/thread_communicator.h"
#include "tests/support/catch.h"
#include "tests/support/message_of.h"
#include "tests/train/watched_run.h"
#include "train/checkpoint_report.h"

namespace adagate {
namespace {

using namespace tiny;

constexpr int64_t kSamples = 10;  // of letters(80): a step of two has 16 targets, an epoch 5 steps

// Far from the shuffle, another one in every epoch.
std::vector<int64_t> order_of(int64_t epoch) {
  std::vector<int64_t> order(kSamples);
  std::iota(order.rbegin(), order.rend(), 0);
  std::rotate(order.begin(), order.begin() + 3 * (epoch % 3), order.end());
  return order;
}

RunConfig ordered_config(const TempFolder& folder, const std::string& name, double length) {
  RunConfig config = run_config(folder, 80);
  config.train.length = steps(length);
  config.checkpoint.save_at_end = true;
  config.output = folder.path(name);
  return config;
}

struct Told {
  std::vector<double> losses;
  std::vector<int64_t> epochs;  // that the hook was asked for
};

enum class Hook { given, none };

Told train_on(int ranks, const RunConfig& config, Hook hook = Hook::given) {
  Told told;
  std::mutex mutex;
  run_ranks(ranks, [&](std::shared_ptr<Communicator> world) {
    bool first = world->rank() == 0;
    Watcher seen;
    Trainer trainer(config, {}, world);
    trainer.observe(seen);
    if (hook == Hook::given)
      trainer.at_epoch_start([&](int64_t epoch) {
        std::lock_guard lock(mutex);
        if (first) told.epochs.push_back(epoch);
        return order_of(epoch);
      });
    trainer.run();
    if (first) told.losses = seen.losses();
  });
  return told;
}

RunConfig gone_on(RunConfig config, const std::string& output, const std::string& from) {
  config.checkpoint.resume = fmt::format("{}/checkpoints/{}", config.output, from);
  config.output = output;
  return config;
}

// The steps from `first` on are those of the whole run: to the bit, or to round-off.
void expect_tail(const Told& whole, const Told& tail, size_t first, bool bits) {
  REQUIRE(tail.losses.size() == whole.losses.size() - first);
  for (size_t i = 0; i < tail.losses.size(); ++i) {
    INFO("step " << first + i + 1);
    double expected = whole.losses[first + i];
    if (bits) CHECK(tail.losses[i] == expected);
    CHECK(tail.losses[i] == Approx(expected).epsilon(1e-6));
  }
}

}  // namespace

TEST_CASE("order: a run that goes on in mid-epoch has the samples of one that was not stopped") {
  TempFolder folder;
  for (int from : {1, 2}) {
    INFO("saved by " << from);
    Told whole = train_on(from, ordered_config(folder, fmt::format("whole{}", from), 13));
    CHECK(whole.epochs == std::vector<int64_t>{0, 1, 2});
    RunConfig part = ordered_config(folder, fmt::format("part{}", from), 7);
    CHECK(train_on(from, part).epochs == std::vector<int64_t>{0, 1});
    part.train.length = steps(13);
    for (int to : {1, 2, 4}) {
      INFO("gone on with by " << to);
      Told tail = train_on(
          to, gone_on(part, folder.path(fmt::format("tail{}{}", from, to)), "step-00000007"));
      CHECK(tail.epochs == std::vector<int64_t>{2});
      expect_tail(whole, tail, 7, from == to);
    }
  }
}

TEST_CASE("order: the hook is asked for an epoch that begins, and without one the order stays") {
  TempFolder folder;
  Told whole = train_on(1, ordered_config(folder, "whole", 15));
  RunConfig part = ordered_config(folder, "part", 10);
  train_on(1, part);
  part.train.length = steps(15);
  Told tail = train_on(1, gone_on(part, folder.path("tail"), "step-00000010"));
  CHECK(tail.epochs == std::vector<int64_t>{2});
  expect_tail(whole, tail, 10, true);
  // Epochs 1 and 2 in the order of epoch 0, as far as the weights let one see.
  RunConfig still = ordered_config(folder, "still", 2);
  still.train.optimizer.learning_rate = 0;
  std::vector<double> begun = train_on(1, still).losses;
  still.train.length = steps(12);
  Told kept = train_on(1, gone_on(still, folder.path("kept"), "step-00000002"), Hook::none);
  CHECK(kept.epochs.empty());
  REQUIRE(kept.losses.size() == 10);
  CHECK(std::vector(kept.losses.begin() + 3, kept.losses.begin() + 5) == begun);
  CHECK(std::vector(kept.losses.begin(), kept.losses.begin() + 5) ==
        std::vector(kept.losses.begin() + 5, kept.losses.end()));
}

TEST_CASE("order: stored once, as whole numbers; the shuffle stores none") {
  TempFolder folder;
  RunConfig ordered = ordered_config(folder, "ordered", 1);
  train_on(2, ordered);
  Manifest manifest = read_manifest(ordered.output + "/checkpoints/step-00000001");
  const StoredTensor& stored = manifest.tensors.at("data/order");
  CHECK(stored.dtype == DType::i64);
  CHECK(stored.shape == Shape{kSamples});
  CHECK(stored.slices.size() == 1);
  auto inspected = checkpoint_report(ordered.output + "/checkpoints/step-00000001").json["states"];
  REQUIRE(inspected.size() == 1);
  CHECK(inspected[0]["name"] == "data/order");
  RunConfig shuffled = ordered_config(folder, "shuffled", 1);
  train_on(2, shuffled, Hook::none);
  CHECK(read_manifest(shuffled.output + "/checkpoints/step-00000001").tensors.count("data/order") ==
        0);
}

TEST_CASE("order: of other data it is refused") {
  TempFolder folder;
  RunConfig config = ordered_config(folder, "run", 2);
  train_on(1, config);
  config.train.length = steps(4);
  for (size_t size : {80, 90}) {
    RunConfig other = gone_on(config, folder.path("other"), "step-00000002");
    other.data.train = folder.write("other.txt", letters(size, 2));
    CHECK_THAT(message_of([&] { Trainer(other, {}, make_self_mesh().world); }),
               Catch::Contains("whose text is not the one that the saved run was trained on"));
  }
}

TEST_CASE("order: one that is no permutation, or not the same on all ranks, ends all of them") {
  TempFolder folder;
  auto messages = [&](auto&& order) {
    std::vector<std::string> all(2);
    RunConfig config = ordered_config(folder, "run", 2);
    run_ranks(2, [&](std::shared_ptr<Communicator> world) {
      int rank = world->rank();
      Trainer trainer(config, {.overwrite = true}, world);
      trainer.at_epoch_start([&](int64_t) { return order(rank); });
      all[static_cast<size_t>(rank)] = message_of([&] { trainer.run(); });
    });
    CHECK(all[0] == all[1]);
    return all[0];
  };
  auto twice = order_of(0);
  twice[1] = twice[0];
  CHECK_THAT(messages([&](int) { return twice; }), Catch::Contains("sample 9 twice"));
  CHECK_THAT(messages([&](int) {
               return std::vector<int64_t>{0, 1};
             }),
             Catch::Contains("an order of 2 samples for a data set of 10"));
  for (bool none : {false, true})
    CHECK_THAT(messages([&](int rank) {
                 if (rank == 0) return order_of(0);
                 return none ? std::vector<int64_t>{} : order_of(1);
               }),
               Catch::StartsWith("the order of the samples in epoch 0 is 10 samples") &&
                   Catch::Contains("rank 1"));
}

TEST_CASE("the caller's state that has drifted apart is not saved") {
  TempFolder folder;
  RunConfig config = ordered_config(folder, "run", 1);
  std::vector<std::string> messages(2);
  run_ranks(2, [&](std::shared_ptr<Communicator> world) {
    int rank = world->rank();
    Tensor table = Tensor::full({4}, DType::i32, rank);
    Trainer trainer(config, {.states = {state_tensor("run/table", table)}}, world);
    messages[static_cast<size_t>(rank)] = message_of([&] { trainer.run(); });
  });
  CHECK(messages[0] == messages[1]);
  CHECK_THAT(messages[0], Catch::Contains("do not have the same run/table after step 1"));
  CHECK(!std::filesystem::exists(config.output + "/checkpoints"));
}

TEST_CASE("the caller's state is saved with the run's, and filled where it goes on") {
  TempFolder folder;
  RunConfig config = ordered_config(folder, "run", 1);
  auto options_with = [](const std::string& name, Tensor table) {
    return TrainerOptions{.states = {state_tensor(name, std::move(table))}};
  };
  Tensor table = Tensor::full({4}, DType::i32, 7);
  Trainer(config, options_with("run/table", table), make_self_mesh().world).run();
  config.checkpoint.resume = "auto";
  config.train.length = steps(2);
  Tensor other = Tensor::zeros({4}, DType::i32);
  auto error = [&](const TrainerOptions& options) {
    return message_of([&] { Trainer(config, options, make_self_mesh().world); });
  };
  CHECK_THAT(error({}), Catch::Contains("has the tensor run/table"));
  CHECK_THAT(error(options_with("run/other", other)), Catch::Contains("has no tensor run/other"));
  CHECK_THAT(error(options_with("table", other)), Catch::Contains("must be called run/"));
  CHECK(error(options_with("run/table", other)) == "no error");
  CHECK(other.to_doubles() == std::vector<double>(4, 7.0));
}

}  // namespace adagate
