// What --json prints: one object, with the fields that docs/commands.md names.
#include <cmath>
#include <nlohmann/json.hpp>

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
                               "train.optimizer.learning_rate=1e8"))
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

TEST_CASE("inspect --json: a checkpoint") {
  json checkpoint = printed("inspect " + workshop().model());
  CHECK(keys_of(checkpoint) == Keys{"configuration", "consumed_samples", "consumed_tokens", "epoch",
                                    "epoch_step", "expert_parallel", "extra", "kind",
                                    "optimizer_tensors", "parameters", "path", "ranks", "shards",
                                    "states", "step", "tensors"});
  CHECK(checkpoint["path"] == workshop().model() + "/checkpoints/step-00000030");
  CHECK(checkpoint["kind"] == "checkpoint");
  CHECK(checkpoint["step"] == 30);
  CHECK(checkpoint["epoch"] == 2);
  CHECK(checkpoint["epoch_step"] == 6);
  CHECK(checkpoint["ranks"] == 1);
  CHECK(checkpoint["extra"]["tokenizer"] == "byte");
  CHECK(checkpoint["shards"].size() == 1);
  CHECK(checkpoint["shards"][0]["sound"] == true);
  CHECK(checkpoint["shards"][0]["bytes"] > 12 * checkpoint["parameters"].get<int64_t>());
  int64_t elements = 0;
  bool embedding = false;
  for (const json& tensor : checkpoint["tensors"]) {
    CHECK(keys_of(tensor) == Keys{"name", "shape", "slices", "type"});
    int64_t count = 1;
    for (int64_t d : tensor["shape"]) count *= d;
    elements += count;
    embedding |= tensor["name"] == "embedding.tokens" && tensor["shape"] == json{257, 16};
  }
  CHECK(elements == checkpoint["parameters"]);
  CHECK(embedding);
  CHECK(checkpoint["configuration"].get<std::string>().find("  length: 30s") != std::string::npos);
  json metrics = printed("inspect " + workshop().model() + "/metrics.jsonl");
  CHECK(metrics["kind"] == "metrics");
  CHECK(metrics["first_step"] == 1);
  CHECK(metrics["last_step"] == 30);
  CHECK(metrics["lines"] >= 30);
}

TEST_CASE("inspect --json: tokens, texts and tokenizers") {
  std::string file = workshop().path("text");
  json tokens = printed("inspect " + file);
  json expected = {{"path", file},        {"kind", "token_file"},
                   {"tokens", 600},       {"documents", 200},
                   {"tokenizer", "byte"}, {"vocabulary", 257},
                   {"token_bytes", 2},    {"tokenizer_hash", tokens["tokenizer_hash"]}};
  CHECK(tokens == expected);
  CHECK(tokens["tokenizer_hash"].get<std::string>().size() == 16);
  json begins = printed("inspect --tokenizer byte " + file);
  CHECK(begins["begins"].get<std::string>().starts_with("ab<|endoftext|>ab"));
  json text = {
      {"path", workshop().path("lines")}, {"kind", "text"}, {"form", "utf-8"}, {"bytes", 600}};
  CHECK(printed("inspect " + workshop().path("lines")) == text);
  workshop().write("latin", "caf\xe9 au lait");
  CHECK(printed("inspect " + workshop().path("latin"))["form"] == "bytes");
  run_shell("gzip -k " + workshop().path("lines"));
  CHECK(printed("inspect " + workshop().path("lines.gz"))["form"] == "gzip");
  json tokenizer = printed("inspect tests/reference/fixtures/tokenizer.json");
  CHECK(keys_of(tokenizer) == Keys{"end_of_text", "hash", "kind", "name", "path", "vocabulary"});
  CHECK(tokenizer["kind"] == "tokenizer");
  CHECK(tokenizer["vocabulary"] > 256);
}

TEST_CASE("inspect --json: tensor files, one of them unsound, and their index") {
  std::string folder = workshop().path("tensors");
  run_shell("mkdir " + folder);
  std::string header = R"({"half":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]}})";
  std::string length(8, '\0');
  length[0] = static_cast<char>(header.size());
  workshop().write("tensors/a.safetensors", length + header + "123456789012");
  json file = {{"path", folder + "/a.safetensors"},
               {"kind", "tensor_file"},
               {"metadata", json::object()},
               {"tensors", json::array({{{"name", "half"}, {"type", "F16"}, {"shape", {2, 3}}}})},
               {"elements", 6},
               {"bytes", 12}};
  CHECK(printed("inspect " + folder + "/a.safetensors") == file);
  json alone = {{"path", folder}, {"kind", "tensor_files"}, {"files", {file}}, {"index", nullptr}};
  CHECK(printed("inspect " + folder) == alone);
  workshop().write("tensors/b.safetensors", "x");
  workshop().write("tensors/model.safetensors.index.json",
                   R"({"metadata": {"total_size": 24},
                       "weight_map": {"half": "a.safetensors", "x": "c.safetensors"}})");
  json all = printed("inspect " + folder, 1);
  REQUIRE(all["files"].size() == 2);
  CHECK(all["files"][0] == file);
  CHECK(keys_of(all["files"][1]) == Keys{"error", "kind", "path"});
  json index = {
      {"path", folder + "/model.safetensors.index.json"},
      {"kind", "tensor_index"},
      {"shards", json::array({{{"file", "a.safetensors"}, {"tensors", 1}, {"missing", false}},
                              {{"file", "c.safetensors"}, {"tensors", 1}, {"missing", true}}})},
      {"missing_shards", 1},
      {"tensor_count", 2},
      {"bytes", 24}};
  CHECK(all["index"] == index);
  workshop().write("tensors/config.json", R"({"model_type": "gpt2", "width": 8, "list": []})");
  json config = {{"path", folder + "/config.json"},
                 {"kind", "model_config"},
                 {"values", {{"model_type", "gpt2"}, {"width", 8}}}};
  CHECK(printed("inspect " + folder + "/config.json") == config);
  workshop().write("tensors/vocab.json", R"({"a": 0, "b": 1})");
  json vocabulary = {{"path", folder + "/vocab.json"}, {"kind", "vocabulary"}, {"vocabulary", 2}};
  CHECK(printed("inspect " + folder + "/vocab.json") == vocabulary);
}

TEST_CASE("--json: an error leaves standard output empty") {
  for (std::string line : {"evaluate ", "generate ", "inspect "}) {
    Outcome outcome = run(line + workshop().path("nothing") + " --json 2>/dev/null");
    CHECK(outcome.status == 1);
    CHECK(outcome.output.empty());
  }
}
