// What a resumed run must have as the saved one had it, and what it may change.
#include <nlohmann/json.hpp>

#include "data/bpe_definition.h"
#include "tests/support/catch.h"
#include "tests/train/watched_run.h"
#include "train/config/yaml_loader.h"
#include "train/kept_tokenizer.h"
#include "train/saved_model.h"

namespace adagate {
namespace {

using namespace tiny;

RunConfig with_key(const RunConfig& config, const std::string& set) {
  ConfigTree tree;
  tree.add_text(write_yaml(config), "config");
  tree.add_override(set);
  return read_config<RunConfig>(tree);
}

// A byte-level BPE of all bytes and one merge.
void write_tokenizer(const TempFolder& folder, const std::string& name, const std::string& left,
                     const std::string& right) {
  nlohmann::json vocabulary;
  for (int b = 0; b < 256; ++b) vocabulary[byte_symbol(static_cast<uint8_t>(b))] = b;
  vocabulary[left + right] = 256;
  vocabulary["<|endoftext|>"] = 257;
  folder.write(name + "/vocab.json", vocabulary.dump());
  folder.write(name + "/merges.txt", "#version: 0.2\n" + left + " " + right + "\n");
}

}  // namespace

TEST_CASE("resume: what neither tensors nor positions would show must be as it was") {
  TempFolder folder;
  RunConfig config = run_config(folder);
  config.checkpoint.save_at_end = true;
  watch(config);
  config.checkpoint.resume = "auto";
  config.train.length = steps(4);
  for (const std::string set : {"model.heads=4",
                                "model.norm_epsilon=0.001",
                                "model.rotary_base=5000",
                                "model.activation=gelu_erf",
                                "model.activation=relu",
                                "model.activation=silu",
                                "data.shuffle=false",
                                "data.keep_last_batch=false",
                                "seed=2",
                                "train.batch=1",
                                "data.validation_share=0.3",
                                "model.width=16",
                                "model.layers=2",
                                "model.bias=false",
                                "model.tie_embeddings=false",
                                "moe.experts=2",
                                "model.feed_forward=16",
                                "model.kv_heads=1",
                                "model.context=4",
                                "model.norm=rms_norm",
                                "model.positions=rotary",
                                "model.vocabulary=300"}) {
    INFO(set);
    std::string key = set.substr(0, set.find('='));
    CHECK_THROWS_WITH(WatchedRun(with_key(config, set)),
                      Catch::StartsWith(key + " is " + set.substr(key.size() + 1)) &&
                          Catch::Contains(", but the run that saved ") &&
                          Catch::Contains("start anew") && !Catch::Contains("--allow-change"));
  }
  CHECK_THROWS_WITH(WatchedRun(with_key(with_key(config, "seed=2"), "model.heads=4")),
                    Catch::StartsWith("seed is 2, model.heads is 4, but the run that saved ") &&
                        Catch::Contains(" had 1, 2: "));
}

TEST_CASE("resume: what changes the computation is refused, or allowed by name") {
  TempFolder folder;
  RunConfig config = run_config(folder);
  config.checkpoint.save_at_end = true;
  watch(config);
  config.checkpoint.resume = "auto";
  config.train.length = steps(4);
  std::string before = folder.read("run/config.yaml");
  for (auto [set, section] : {std::pair{"train.optimizer.learning_rate=0.1", "train.optimizer"},
                              {"train.optimizer.weight_decay=0.3", "train"},
                              {"train.optimizer.clip_norm=0", "train.optimizer"},
                              {"train.schedule.warmup=2s", "train.schedule"},
                              {"train.schedule.decay=linear", "train"},
                              {"train.evaluate_samples=1", "train"},
                              {"model.dropout=0.1", "model"},
                              {"precision=bf16", "precision"}}) {
    INFO(set);
    std::string key = std::string(set).substr(0, std::string(set).find('='));
    RunConfig changed = with_key(config, set);
    CHECK_THROWS_WITH(WatchedRun(changed), Catch::StartsWith(key + " is ") &&
                                               Catch::Contains("--allow-change " + key + ","));
    // Neither another key nor the beginning of a word will do.
    for (const char* other : {"data", "train.optimizer.epsilon", "train.log_every", "moe"})
      CHECK_THROWS_AS(WatchedRun(changed, {.allowed_changes = {other}}), Error);
    for (const std::string& word : {key, std::string(section)})
      CHECK(WatchedRun(changed, {.allowed_changes = {word}}).trainer.state().step == 3);
  }
  CHECK(folder.read("run/config.yaml") == before);
  for (const std::string set :
       {"train.accumulation=2", "train.log_every=1", "model.initializer_range=0.02",
        "checkpoint.keep=5", "data.prefetch=1", "train.evaluate_every=1s", "moe.gate.threshold=0.3",
        "train.activation_checkpointing=block", "log_level=warning", "checkpoint.every=24t"}) {
    INFO(set);
    CHECK(WatchedRun(with_key(config, set)).trainer.state().step == 3);
  }
  // Other words for the same values. (A step has 16 tokens, an epoch 3 steps.)
  for (const std::string set :
       {"train.schedule.warmup=0t", "train.schedule.warmup=0e", "model.kv_heads=2",
        "model.feed_forward=32", "model.vocabulary=257", "train.optimizer.learning_rate=1.0e-2"}) {
    INFO(set);
    CHECK(WatchedRun(with_key(config, set)).trainer.state().step == 3);
  }
}

TEST_CASE("resume: the text of the evaluations counts, not its place") {
  TempFolder folder;
  RunConfig config = run_config(folder);
  config.checkpoint.save_at_end = true;
  config.data.validation = folder.write("valid.txt", letters(30, 5));
  watch(config);
  config.checkpoint.resume = "auto";
  config.train.length = steps(4);
  config.data.validation = folder.write("moved.txt", letters(30, 5));
  CHECK_NOTHROW(WatchedRun(config));
  config.data.validation = folder.write("other.txt", letters(30, 6));
  CHECK_THROWS_WITH(WatchedRun(config), Catch::StartsWith("data.validation is "));
  CHECK_NOTHROW(WatchedRun(config, {.allowed_changes = {"data.validation"}}));
  folder.write("valid.txt", letters(30, 6));  // in place
  config.data.validation = folder.path("valid.txt");
  CHECK_THROWS_WITH(WatchedRun(config), Catch::StartsWith("data.validation is "));
}

TEST_CASE("resume: another text is refused, the same one elsewhere is taken") {
  TempFolder folder;
  RunConfig config = run_config(folder);
  config.checkpoint.save_at_end = true;
  watch(config);
  config.checkpoint.resume = "auto";
  config.data.train = folder.write("other.txt", letters(43, 2));
  CHECK_THROWS_WITH(WatchedRun(config), Catch::Contains("is not the one that the saved run"));
  config.data.train = folder.write("moved.txt", letters(43));
  CHECK_NOTHROW(WatchedRun(config));
}

TEST_CASE("resume: the tokenizer's content counts, not its place") {
  TempFolder folder;
  write_tokenizer(folder, "tokenizer", "a", "b");
  write_tokenizer(folder, "copy", "a", "b");
  write_tokenizer(folder, "other", "b", "a");
  RunConfig config = run_config(folder);
  config.data.tokenizer = folder.path("tokenizer");
  config.checkpoint.save_at_end = true;
  watch(config);
  config.checkpoint.resume = "auto";
  config.data.tokenizer = folder.path("other");
  CHECK_THROWS_WITH(WatchedRun(config), Catch::Contains("with another tokenizer"));
  auto world = make_self_mesh().world;
  CHECK_THROWS_WITH(load_model(config.output, folder.path("other"), world),
                    Catch::Contains("is not the one"));
  std::string hash = hash_text(load_tokenizer(folder.path("copy"))->hash());
  config.data.tokenizer = folder.path("copy");
  CHECK_NOTHROW(WatchedRun(config));
  CHECK_NOTHROW(load_model(config.output, folder.path("copy"), world));
  // The same name, another content.
  write_tokenizer(folder, "tokenizer", "b", "a");
  config.data.tokenizer = folder.path("tokenizer");
  CHECK_THROWS_WITH(WatchedRun(config), Catch::Contains("with another tokenizer"));
  // The run has its own; what it says of a changed one names the way out.
  CHECK(load_model(config.output, "", world).tokenizer->encode("ab").size() == 1);
  std::filesystem::rename(kept_tokenizer(config.output, hash), folder.path("away"));
  CHECK_THROWS_WITH(load_model(config.output, "", world),
                    Catch::Contains("is not the one") && Catch::Contains("--tokenizer"));
  std::filesystem::remove_all(folder.path("tokenizer"));
  CHECK_THROWS_WITH(load_model(config.output, "", world), Catch::Contains("no such file") &&
                                                              Catch::Contains("looked for from ") &&
                                                              Catch::Contains("--tokenizer"));
  CHECK_NOTHROW(load_model(config.output, folder.path("away"), world));
}

}  // namespace adagate
