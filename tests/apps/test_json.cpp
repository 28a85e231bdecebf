// What --json prints: one object, with the fields that docs/commands.md names.
#include <cmath>
#include <nlohmann/json.hpp>

#include "tests/apps/program.h"
#include "tests/apps/workshop.h"

using namespace adagate;
using namespace adagate::program;

namespace {

using nlohmann::json;

std::vector<std::string> keys_of(const json& object) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : object.items()) keys.push_back(key);
  return keys;  // sorted
}

using Keys = std::vector<std::string>;

// The object that this command prints on standard output, and nothing besides.
json printed(const std::string& arguments, int status = 0) {
  Outcome outcome = run(arguments + " --json 2>/dev/null");
  CAPTURE(arguments, outcome.output);
  CHECK(outcome.status == status);
  json object = json::parse(outcome.output, nullptr, false);
  REQUIRE(object.is_object());
  return object;
}

json printed_by_two_ranks(const std::string& arguments) {
  Outcome outcome = run_on_two_ranks(arguments + " --json 2>/dev/null");
  CAPTURE(arguments, outcome.output);
  CHECK(outcome.status == 0);
  json object = json::parse(outcome.output, nullptr, false);
  REQUIRE(object.is_object());
  return object;
}

}  // namespace

TEST_CASE("evaluate --json: the figures of the text, in full") {
  std::string line = "evaluate " + workshop().model() + " --threads 1";
  json one = printed(line);
  CHECK(keys_of(one) ==
        Keys{"experts_per_token", "loss", "moe", "perplexity", "single_expert_share", "targets"});
  CHECK(one["targets"] == 59);
  double loss = one["loss"], perplexity = one["perplexity"], experts = one["experts_per_token"];
  CHECK(perplexity == std::exp(loss));
  CHECK(experts == Approx(2 - one["single_expert_share"].get<double>()));
  char text[200];
  std::snprintf(text, sizeof text,
                "loss %.5f  perplexity %.3f  targets 59\nexperts per token %.3f\n", loss,
                perplexity, experts);
  CHECK(run(line).output.starts_with(text));
  REQUIRE(one["moe"].size() == 1);
  const json& layer = one["moe"][0];
  CHECK(keys_of(layer) ==
        Keys{"assignments", "block", "bytes_sent", "entropy", "load", "single_expert_share"});
  REQUIRE(layer["load"].size() == 2);
  CHECK(layer["load"][0].get<double>() + layer["load"][1].get<double>() == layer["assignments"]);
  CHECK(layer["bytes_sent"] == 0);
  json two = printed_by_two_ranks(line);
  CHECK(two["loss"].get<double>() == Approx(loss).margin(2e-5));
  CHECK(keys_of(two) == keys_of(one));
}

TEST_CASE("evaluate --json: what is no finite number is null") {
  REQUIRE(run(workshop().train("wild",
                               "--set train.length=2s --set "
                               "train.optimizer.learning_rate=1e4"))
              .status == 0);
  json wild = printed("evaluate " + workshop().path("wild") + " --threads 1");
  CHECK(wild["perplexity"].is_null());
}

TEST_CASE("generate --json: prompt, text and tokens") {
  std::string line = "generate " + workshop().model() + " --threads 1 --temperature 0 --prompt a";
  json ended = {{"prompt", "a"},
                {"prompt_tokens", 1},
                {"text", "b"},
                {"tokens", {98}},
                {"end_of_text", true}};
  CHECK(printed(line) == ended);
  CHECK(printed_by_two_ranks(line) == ended);
  json cut = printed(line + " --tokens 3 --ignore-end");
  CHECK(cut["text"] == "b<|endoftext|>a");
  CHECK(cut["tokens"].size() == 3);
  CHECK(cut["end_of_text"] == false);
  workshop().write("latin", "a\xe9\"");  // no UTF-8
  json replaced = printed("generate " + workshop().model() +
                          " --threads 1 --tokens 1 --prompt-file " + workshop().path("latin"));
  CHECK(replaced["prompt"] == "a\xef\xbf\xbd\"");
}

TEST_CASE("--json: an error leaves standard output empty") {
  for (std::string line : {"evaluate ", "generate "}) {
    Outcome outcome = run(line + workshop().path("nothing") + " --json 2>/dev/null");
    CHECK(outcome.status == 1);
    CHECK(outcome.output.empty());
  }
}
