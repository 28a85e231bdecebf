// What a run may write over, and what it may not.
#include <fmt/format.h>

#include "core/base/error.h"
#include "tests/support/catch.h"
#include "tests/support/temp_folder.h"
#include "train/config/config_writer.h"
#include "train/earlier_run.h"

namespace adagate {
namespace {

namespace fs = std::filesystem;

std::string config_text(int64_t seed, const std::string& resume = "none") {
  RunConfig config;
  config.seed = seed;
  config.checkpoint.resume = resume;
  return write_yaml(config);
}

constexpr const char* kMetrics = "{\"step\":1,\"loss\":2.5}\n{\"step\":2,\"loss\":2.25}\n";

OutputUse use_of(const TempFolder& folder) {
  return {.output = folder.path(), .config_yaml = config_text(1), .inputs = {}};
}

std::string refusal(const OutputUse& use) {
  try {
    check_no_input_goes(use);
    check_no_result_goes(use);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("results: an earlier run's metrics and configuration go only with --overwrite") {
  TempFolder folder;
  OutputUse use = use_of(folder);
  CHECK(refusal(use).empty());
  folder.write("metrics.jsonl", "");
  folder.write("config.yaml", config_text(2));
  CHECK(refusal(use).empty());  // of a run that took no step
  folder.write("metrics.jsonl", kMetrics);
  for (int64_t seed : {1, 2}) {
    folder.write("config.yaml", config_text(seed));
    CHECK_THAT(refusal(use), Catch::Contains("metrics.jsonl") && Catch::Contains("--overwrite"));
  }
  use.overwrite = true;
  CHECK(refusal(use).empty());
  use.overwrite = false;
  use.goes_on = true;
  CHECK(refusal(use).empty());
}

TEST_CASE("results: a run that starts again may replace its own, until it has ended") {
  TempFolder folder;
  OutputUse use = use_of(folder);
  use.starts_again = true;
  folder.write("metrics.jsonl", kMetrics);
  CHECK_FALSE(refusal(use).empty());
  folder.write("config.yaml", config_text(1, "auto"));
  CHECK(refusal(use).empty());
  CHECK_NOTHROW(check_unfinished(use, 3));
  CHECK_THROWS_WITH(check_unfinished(use, 2), Catch::Contains("--overwrite"));
  use.starts_again = false;
  CHECK_NOTHROW(check_unfinished(use, 2));
  CHECK_FALSE(refusal(use).empty());
  use.starts_again = true;
  folder.write("config.yaml", config_text(2, "auto"));
  CHECK_FALSE(refusal(use).empty());
}

TEST_CASE("results: what adagate didn't write stays, whatever may go") {
  TempFolder folder;
  OutputUse use = use_of(folder);
  use.overwrite = use.goes_on = true;
  for (const char* text : {"seed: 1  # my favourite\n", "train: {length: 4s}\n", "[broken",
                           "# mine\nseed: 1  # of initial weights\n", ""}) {
    folder.write("config.yaml", text);
    INFO(text);
    CHECK_THAT(refusal(use), Catch::Contains("not one that adagate wrote"));
  }
  folder.write("config.yaml", "# The configuration of this run; written by adagate.\nseed: 3\n");
  CHECK(refusal(use).empty());
  for (const char* text : {"{\"text\":\"a data set\"}\n", "1\n", "notes\n"}) {
    folder.write("metrics.jsonl", text);
    INFO(text);
    CHECK_THAT(refusal(use), Catch::Contains("metrics.jsonl"));
  }
  folder.write("metrics.jsonl", "{\"step\":1,\"lo");  // torn by a kill
  CHECK(refusal(use).empty());
  for (const char* name : {"config.yaml", "metrics.jsonl"}) {
    fs::remove(folder.path(name));
    fs::create_symlink("nowhere", folder.path(name));
    CHECK_THAT(refusal(use), Catch::Contains(name) && Catch::Contains("link"));
    fs::remove(folder.path(name));
    fs::create_directory(folder.path(name));
    CHECK_THAT(refusal(use), Catch::Contains(name));
    fs::remove(folder.path(name));
  }
}

TEST_CASE("inputs: none is written over, under any name") {
  TempFolder folder;
  OutputUse use = use_of(folder);
  use.overwrite = true;
  folder.write("config.yaml", config_text(2));
  folder.write("metrics.jsonl", kMetrics);
  CHECK(refusal(use).empty());
  fs::create_symlink("config.yaml", folder.path("mine.yaml"));
  fs::create_hard_link(folder.path("metrics.jsonl"), folder.path("data.jsonl"));
  use.inputs = {folder.path("mine.yaml")};
  CHECK_THAT(refusal(use), Catch::Contains("config.yaml is read by this run"));
  use.inputs = {folder.path("absent"), folder.path("data.jsonl")};
  CHECK_THAT(refusal(use), Catch::Contains("metrics.jsonl is read by this run"));
  // Its own configuration, which says the same: nothing would be lost.
  use.inputs = {folder.path("config.yaml")};
  use.config_yaml = config_text(2, "auto");
  CHECK(refusal(use).empty());
  folder.write("config.yaml", config_text(2) + "# a comment\n");
  CHECK_THAT(refusal(use), Catch::Contains("is read by this run"));
}

TEST_CASE("inputs: data, weights and the files of a tokenizer") {
  TempFolder folder;
  RunConfig config;
  CHECK(inputs_of(config).empty());
  config.data.train = "a";
  config.data.validation = "b";
  config.checkpoint.initial_weights = "c";
  CHECK(inputs_of(config) == std::vector<fs::path>{"a", "b", "c"});
  folder.write("tokenizer/vocab.json", "{}");
  config.data = {};
  config.data.tokenizer = folder.path("tokenizer");
  config.checkpoint.initial_weights = "";
  CHECK(inputs_of(config) ==
        std::vector<fs::path>{folder.path("tokenizer"), folder.path("tokenizer/vocab.json")});
}

}  // namespace adagate
