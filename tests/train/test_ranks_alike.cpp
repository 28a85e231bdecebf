// Ranks that were not started alike, or whose weights drift apart: all end with one message, before
// anything of the user's has changed.
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <set>

#include "models/weights.h"
#include "parallel/thread_communicator.h"
#include "tests/support/catch.h"
#include "tests/train/watched_run.h"
#include "train/rank_facts.h"
#include "train/shared_output.h"

namespace adagate {
namespace {

using namespace tiny;
namespace fs = std::filesystem;

using Change = std::function<void(RunConfig&, TrainerOptions&)>;

std::set<std::string> files_below(const fs::path& folder) {
  std::set<std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    files.insert(fs::relative(entry.path(), folder).string());
  return files;
}

// The messages that two ranks end with, the second one's configuration changed; "" of one that
// trained.
std::set<std::string> messages_of(const RunConfig& config, const Change& change) {
  std::set<std::string> messages;
  std::mutex mutex;
  run_ranks(2, [&](std::shared_ptr<Communicator> world) {
    RunConfig own = config;
    TrainerOptions options;
    if (world->rank() == 1) change(own, options);
    std::string message;
    try {
      Trainer(own, options, world).run();
    } catch (const Error& e) {
      message = e.what();
    }
    std::lock_guard lock(mutex);
    messages.insert(message);
  });
  return messages;
}

// The one message; the folder is as before.
std::string refused(const TempFolder& folder, const RunConfig& config, const Change& change) {
  auto before = files_below(folder.path());
  auto messages = messages_of(config, change);
  REQUIRE(messages.size() == 1);
  REQUIRE_FALSE(messages.begin()->empty());
  CHECK(files_below(folder.path()) == before);
  return *messages.begin();
}

bool begins(const std::string& text, const std::string& with) {
  return text.starts_with(with);
}

}  // namespace

TEST_CASE("ranks: every key that decides the computation is compared") {
  const std::set<std::string> may_differ = {"output",         "log_level",  "parallel.threads",
                                            "data.tokenizer", "data.train", "data.prefetch",
                                            "train.log_every"};
  std::map<std::string, std::string> facts;
  for (const RankFact& fact : config_facts(RunConfig())) facts[fact.name] = fact.value;
  size_t fields = 0;
  for (const FieldInfo& field : list_fields(RunConfig())) {
    if (field.is_section) continue;
    std::string name = field.section.empty() ? field.key : field.section + "." + field.key;
    CAPTURE(name);
    CHECK(facts.count(name) == 1 - may_differ.count(name));
    ++fields;
  }
  CHECK(facts.size() == fields - may_differ.size());
}

TEST_CASE("ranks: another configuration on one of them ends all with the key and both values") {
  TempFolder folder;
  RunConfig config = run_config(folder);
  config.data.validation = config.data.train;
  auto with = [&](const Change& change) { return refused(folder, config, change); };
  CHECK(with([](RunConfig& c, TrainerOptions&) { c.seed = 7; }) ==
        "seed is 1 on rank 0, 7 on rank 1: start all ranks with the same configuration and "
        "options");
  CHECK(begins(with([](RunConfig& c, TrainerOptions&) { c.train.optimizer.learning_rate = 0.5; }),
               "train.optimizer.learning_rate is 0.01 on rank 0, 0.5 on rank 1:"));
  CHECK(begins(with([](RunConfig& c, TrainerOptions&) { c.parallel.expert = 2; }),
               "parallel.expert is 1 on rank 0, 2 on rank 1:"));
  CHECK(begins(with([](RunConfig& c, TrainerOptions&) { c.moe.gate.threshold = 0.9; }),
               "moe.gate.threshold is 0.1 on rank 0, 0.9 on rank 1:"));
  CHECK(begins(with([](RunConfig& c, TrainerOptions&) { c.model.width = 16; }),
               "model.width is 8 on rank 0, 16 on rank 1:"));
  CHECK(begins(with([](RunConfig& c, TrainerOptions&) { c.checkpoint.resume = "auto"; }),
               "checkpoint.resume is none on rank 0, "));
  CHECK(begins(with([](RunConfig& c, TrainerOptions&) { c.data.validation = ""; }),
               "data.validation is "));
  CHECK(begins(with([](RunConfig&, TrainerOptions& o) { o.overwrite = true; }),
               "--overwrite is not given on rank 0, given on rank 1:"));
}

TEST_CASE("ranks: files count by content, and keys of a host may differ") {
  TempFolder folder;
  RunConfig config = run_config(folder);
  std::string copy = folder.write("copy.txt", letters(43));
  std::string other = folder.write("other.txt", letters(43, 2));
  auto message =
      refused(folder, config, [&](RunConfig& c, TrainerOptions&) { c.data.train = other; });
  CHECK(begins(message, "data.train is " + config.data.train + " (content "));
  CHECK(message.find(other + " (content ") != std::string::npos);
  config.data.validation = config.data.train;
  CHECK(begins(
      refused(folder, config, [&](RunConfig& c, TrainerOptions&) { c.data.validation = other; }),
      "data.validation is "));
  CHECK(refused(folder, config, [&](RunConfig& c, TrainerOptions&) {
          c.data.train = folder.path("nowhere.txt");
        }).find("does not exist (looked for from ") != std::string::npos);

  CHECK(messages_of(config, [&](RunConfig& c, TrainerOptions&) {
          c.data.train = c.data.validation = copy;
          c.parallel.threads = 1;
          c.log_level = "error";
          c.train.log_every = 3;
          c.data.prefetch = 1;
        }) == std::set<std::string>{""});
}

TEST_CASE("ranks: initial weights and the checkpoint gone on from are the same on all") {
  TempFolder folder;
  RunConfig config = run_config(folder);
  config.checkpoint.save_at_end = true;
  for (int64_t seed : {1, 2}) {
    RunConfig run = config;
    run.seed = seed;
    run.output = folder.path("run" + std::to_string(seed));
    WatchedRun watched(run);
    watched.run();
    export_weights(folder.path() / fmt::format("{}.safetensors", seed),
                   watched.trainer.store().parameters(), watched.trainer.mesh());
  }
  config.checkpoint.initial_weights = folder.path("1.safetensors");
  CHECK(begins(refused(folder, config,
                       [&](RunConfig& c, TrainerOptions&) {
                         c.checkpoint.initial_weights = folder.path("2.safetensors");
                       }),
               "checkpoint.initial_weights is "));
  config.checkpoint.initial_weights = "";
  config.train.length = steps(4);
  config.checkpoint.resume = folder.path("run1");
  CHECK(begins(
      refused(folder, config,
              [&](RunConfig& c, TrainerOptions&) { c.checkpoint.resume = folder.path("run2"); }),
      "checkpoint.resume is "));
}

TEST_CASE("ranks: an output folder that they don't share is noticed at the start") {
  TempFolder folder;
  RunConfig config = run_config(folder);
  std::string other = folder.path("elsewhere");
  fs::create_directory(folder.path("run"));
  std::set<std::string> messages;
  std::mutex mutex;
  run_ranks(2, [&](std::shared_ptr<Communicator> world) {
    try {
      check_output_shared(*world, world->rank() == 0 ? config.output : other,
                          std::chrono::milliseconds(60));
    } catch (const Error& e) {
      std::lock_guard lock(mutex);
      messages.insert(e.what());
    }
  });
  REQUIRE(messages.size() == 1);
  CHECK(files_below(folder.path("run")).empty());
  CHECK(*messages.begin() == "output is not one folder: " + other +
                                 " on rank 1 does not show what rank 0 writes to " + config.output +
                                 "; name a folder that all ranks and hosts share");
  // Another name of the same folder is as good; markers of killed starts go, nothing else.
  fs::create_directory_symlink(folder.path("run"), other);
  std::set<std::string> foreign = {".adagate-start-0123456789abcdeg", ".adagate-start-0123",
                                   ".adagate-start-0123456789abcdef.txt", "adagate-start"};
  for (const std::string& name : foreign) std::ofstream(folder.path("run") + "/" + name);
  std::ofstream(folder.path("run") + "/.adagate-start-0123456789abcdef");
  std::ofstream(folder.path("run") + "/.adagate-start-00000000000000aa") << "mine";
  foreign.insert(".adagate-start-00000000000000aa");
  run_ranks(2, [&](std::shared_ptr<Communicator> world) {
    check_output_shared(*world, world->rank() == 0 ? config.output : other);
  });
  CHECK(files_below(folder.path("run")) == foreign);
}

TEST_CASE("ranks: weights that drift apart are not saved") {
  TempFolder folder;
  RunConfig config = run_config(folder);
  config.checkpoint.save_at_end = true;
  std::set<std::string> messages;
  std::mutex mutex;
  run_ranks(2, [&](std::shared_ptr<Communicator> world) {
    Trainer trainer(config, {}, world);
    if (world->rank() == 1) {
      auto* weights = trainer.store().group(ParameterGroup::dense).master.data<float>();
      weights[3] = std::nextafter(weights[3], 10.0f);
    }
    std::string message;
    try {
      trainer.run();
    } catch (const Error& e) {
      message = e.what();
    }
    std::lock_guard lock(mutex);
    messages.insert(message);
  });
  REQUIRE(messages.size() == 1);
  CHECK(begins(*messages.begin(), "rank 0 and rank 1 do not have the same weights after step 3 ("));
  CHECK_FALSE(fs::exists(fs::path(config.output) / "checkpoints"));
}

}  // namespace adagate
