// What a resumed run must have as the saved one had it, and what it may change.
#include <nlohmann/json.hpp>

#include "data/bpe_definition.h"
#include "tests/support/catch.h"
#include "tests/train/watched_run.h"
#include "train/config/yaml_loader.h"
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
  for (const std::string set :
       {"model.heads=4", "model.norm_epsilon=1e-6", "model.rotary_base=5000",
        "model.activation=gelu_erf", "model.activation=relu", "model.activation=silu",
        "data.shuffle=false", "data.keep_last_batch=false"}) {
    INFO(set);
    std::string key = set.substr(0, set.find('='));
    CHECK_THROWS_WITH(WatchedRun(with_key(config, set)),
                      Catch::StartsWith(key + " is ") && Catch::Contains("start anew"));
  }
  // Positions in the data are counted with these.
  for (const std::string set : {"seed=2", "train.batch=1", "data.validation_share=0.3"}) {
    INFO(set);
    CHECK_THROWS_AS(WatchedRun(with_key(config, set)), Error);
  }
  // Seen by the tensors.
  for (const std::string set :
       {"model.width=16", "model.layers=2", "model.bias=false", "model.tie_embeddings=false",
        "moe.experts=2", "model.feed_forward=16", "model.kv_heads=1", "model.context=4",
        "model.norm=rms_norm", "model.positions=rotary"}) {
    INFO(set);
    CHECK_THROWS_WITH(WatchedRun(with_key(config, set)), Catch::Contains("another model"));
  }
  for (const std::string set :
       {"train.optimizer.learning_rate=0.1", "train.accumulation=2", "model.dropout=0.1",
        "train.log_every=1", "precision=bf16", "model.initializer_range=0.02"}) {
    INFO(set);
    WatchedRun resumed(with_key(config, set));
    CHECK(resumed.trainer.state().step == 3);
  }
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
  config.data.tokenizer = folder.path("copy");
  CHECK_NOTHROW(WatchedRun(config));
  CHECK_NOTHROW(load_model(config.output, folder.path("copy"), world));
  // The same name, another content.
  write_tokenizer(folder, "tokenizer", "b", "a");
  config.data.tokenizer = folder.path("tokenizer");
  CHECK_THROWS_WITH(WatchedRun(config), Catch::Contains("with another tokenizer"));
  CHECK_THROWS_WITH(load_model(config.output, "", world), Catch::Contains("is not the one"));
}

}  // namespace adagate
