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

TEST_CASE("train --dry-run --json: the plan, for the ranks there are") {
  std::string line = workshop().train("dry", "--dry-run");
  json plan = printed(line);
  CHECK(keys_of(plan) == Keys{"active_parameters",
                              "checkpoint_bytes",
                              "checkpoints_bytes",
                              "configuration",
                              "disk_free_bytes",
                              "expert_parallel",
                              "flops_per_step",
                              "initial_weights",
                              "memory_activations_bytes",
                              "memory_available_by",
                              "memory_available_bytes",
                              "memory_parameters_bytes",
                              "output",
                              "parameters",
                              "ranks",
                              "resumes_from",
                              "samples_per_step",
                              "steps",
                              "steps_per_epoch",
                              "threads",
                              "tokenizer",
                              "tokens_per_step",
                              "train",
                              "validation",
                              "vocabulary"});
  json train = {{"path", workshop().path("text")},
                {"token_file", true},
                {"bytes", std::filesystem::file_size(workshop().path("text"))},
                {"tokens", 600},
                {"samples", 90}};
  CHECK(plan["train"] == train);
  json validation = {{"path", workshop().path("text")},
                     {"token_file", true},
                     {"bytes", nullptr},
                     {"tokens", nullptr},
                     {"samples", 10}};
  CHECK(plan["validation"] == validation);
  json figures = {{"steps", 30},
                  {"steps_per_epoch", 12},
                  {"ranks", 1},
                  {"expert_parallel", 1},
                  {"samples_per_step", 8},
                  {"tokens_per_step", 48},
                  {"threads", {1}},
                  {"tokenizer", "byte"},
                  {"vocabulary", 257},
                  {"resumes_from", nullptr},
                  {"initial_weights", nullptr},
                  {"output", workshop().path("dry")}};
  for (const auto& [key, value] : figures.items()) {
    CAPTURE(key);
    CHECK(plan[key] == value);
  }
  CHECK(plan["parameters"] > plan["active_parameters"]);
  CHECK(plan["memory_parameters_bytes"] == 16 * plan["parameters"].get<int64_t>());
  CHECK(plan["checkpoint_bytes"] >= 12 * plan["parameters"].get<int64_t>());
  CHECK(plan["flops_per_step"] > 0);
  CHECK(run(line).output.starts_with(plan["configuration"].get<std::string>()));
  json two = printed_by_two_ranks(line + " --set parallel.expert=2");
  CHECK(two["ranks"] == 2);
  CHECK(two["expert_parallel"] == 2);
  CHECK(two["threads"] == json{1, 1});
  CHECK(two["parameters"] == plan["parameters"]);
  CHECK_FALSE(workshop().exists("dry"));
}

TEST_CASE("train --dry-run --json: what is not known before tokenizing is null") {
  json text = printed(workshop().train(
      "dry",
      "--dry-run --set data.validation_share=0 --set data.tokenizer=tests/reference/fixtures/"
      "tokenizer.json --set data.train=" +
          workshop().path("lines")));
  CHECK(text["train"]["token_file"] == false);
  CHECK(text["train"]["bytes"] == 600);
  for (const char* key : {"tokens", "samples"}) CHECK(text["train"][key].is_null());
  for (const char* key : {"steps_per_epoch", "validation"}) CHECK(text[key].is_null());
  json resumed = printed("train " + workshop().model() + "/config.yaml --dry-run --resume");
  CHECK(resumed["resumes_from"] == workshop().model() + "/checkpoints/step-00000030");
  Outcome alone = run(workshop().train("dry", "--json"));
  CHECK(alone.status == 2);
  CHECK(alone.output.starts_with("adagate: error: --json requires --dry-run"));
}

TEST_CASE("--json: an error leaves standard output empty") {
  for (std::string line : {"evaluate ", "generate "}) {
    Outcome outcome = run(line + workshop().path("nothing") + " --json 2>/dev/null");
    CHECK(outcome.status == 1);
    CHECK(outcome.output.empty());
  }
}
