// Right configurations: what is read, from where, and written back; validation across fields.
#include <filesystem>

#include "tests/support/catch.h"
#include "tests/support/temp_folder.h"
#include "tests/support/test_paths.h"
#include "train/config/config_writer.h"
#include "train/config/run_config.h"
#include "train/config/yaml_loader.h"

using namespace adagate;

namespace {

RunConfig read_text(const std::string& text, const std::vector<std::string>& sets = {}) {
  ConfigTree tree;
  tree.add_text(text, "x.yaml");
  for (const std::string& set : sets) tree.add_override(set);
  return read_config<RunConfig>(tree);
}

// A struct with a field of every type.
struct Everything {
  bool flag = false;
  int64_t count = 0;
  double ratio = 0;
  std::string name = "x";
  Duration span{1, Duration::Unit::epochs};
  std::vector<int64_t> counts;
  std::vector<double> ratios;
  std::vector<std::string> names;

  template <class V, class Self>
  static void visit(V& v, Self& s) {
    v.field("flag", s.flag, "a flag");
    v.field("count", s.count, "a count");
    v.field("ratio", s.ratio, "a ratio");
    v.field("name", s.name, "a name");
    v.field("span", s.span, "a span");
    v.field("counts", s.counts, "counts", at_least(0));
    v.field("ratios", s.ratios, "ratios");
    v.field("names", s.names, "names", one_of({"a", "b: c", "#", "null", "", "-"}));
  }
};

}  // namespace

TEST_CASE("config: values of every type are read and written back alike") {
  Everything e;
  e.flag = true;
  e.count = std::numeric_limits<int64_t>::min();
  e.ratio = 0.1 + 0.2;
  e.span = {3.2e6, Duration::Unit::tokens};
  e.counts = {1, 2, 3};
  e.ratios = {1e-300, -0.5, 1.0 / 3};
  e.names = {"a", "b: c", "#", "null", "", "-"};
  for (std::string name : {"",
                           "plain/word.yaml",
                           "null",
                           "~",
                           "true",
                           "1",
                           "a: b",
                           "a #b",
                           "'",
                           "\"",
                           "\\",
                           "-",
                           "- a",
                           "[x]",
                           "{x}",
                           "*a",
                           "&a",
                           "!a",
                           "%a",
                           "@a",
                           "`a",
                           "?",
                           " a ",
                           "tab\there",
                           "line\nline",
                           "gr\xc3\xbc\xc3\x9f"
                           "e",
                           "\x7f",
                           "...",
                           "---",
                           "=",
                           "<<"}) {
    e.name = name;
    for (bool comments : {false, true}) {
      std::string text = write_yaml(e, comments);
      CAPTURE(text);
      ConfigTree tree;
      tree.add_text(text, "written");
      auto back = read_config<Everything>(tree);
      CHECK(back.flag == e.flag);
      CHECK(back.count == e.count);
      CHECK(back.ratio == e.ratio);
      CHECK(back.name == e.name);
      CHECK(back.span == e.span);
      CHECK(back.counts == e.counts);
      CHECK(back.ratios == e.ratios);
      CHECK(back.names == e.names);
    }
  }
  ConfigTree tree;
  CHECK_THROWS_WITH((tree.add_text("counts:\n- 1\n- -2\n", "t"), read_config<Everything>(tree)),
                    "t:1: counts: must be at least 0, got -2");
}

TEST_CASE("config: later sources override earlier ones key by key") {
  TempFolder folder;
  folder.write("common.yaml", "seed: 5\nmodel: {layers: 2, width: 64}\nmoe:\n  experts: 4\n");
  folder.write("more.yaml", "model: {layers: 3}\n");
  std::string main =
      folder.write("main.yaml", "moe:\nbase: [common.yaml, more.yaml]\nmodel:\n  heads: 4\n");
  std::string later = folder.write("later.yaml", "seed: 6\n");
  ConfigTree tree;
  tree.add_file(main);
  tree.add_file(later);
  tree.add_override("model.width=128");
  tree.add_override("moe.gate={threshold: 0.25, k: 1}");
  tree.add_override("output=runs/#1 of 2");
  RunConfig c = read_config<RunConfig>(tree);
  CHECK(c.seed == 6);
  CHECK(c.model.layers == 3);
  CHECK(c.model.width == 128);
  CHECK(c.model.heads == 4);
  CHECK(c.moe.experts == 4);
  CHECK(c.moe.gate.threshold == 0.25);
  CHECK(c.moe.gate.k == 1);
  CHECK(c.moe.gate.policy == "adaptive");
  CHECK(c.output == "runs/#1 of 2");
}

TEST_CASE("config: a preset sets defaults, explicit keys win wherever they stand") {
  RunConfig c = read_text("model:\n  bias: true\n  preset: modern\n  norm: layer_norm\n");
  CHECK(c.model.positions == "rotary");
  CHECK(c.model.activation == "swiglu");
  CHECK_FALSE(c.model.tie_embeddings);
  CHECK(c.model.bias);
  CHECK(c.model.norm == "layer_norm");
  CHECK(read_text("model: {preset: modern}", {"model.preset=gpt2"}).model.norm == "layer_norm");
  CHECK(read_text("model: {activation: relu}").model.activation == "relu");
  // The written form stays what it was.
  RunConfig again = read_text(write_yaml(c));
  CHECK(write_yaml(again) == write_yaml(c));
  CHECK(again.model.bias);
}

TEST_CASE("config: derived model sizes") {
  ModelConfig m;
  CHECK(m.feed_forward_width() == 1536);
  CHECK(m.key_value_heads() == 6);
  m.activation = "swiglu";
  CHECK(m.feed_forward_width() == 1024);
  m.width = 512;
  CHECK(m.feed_forward_width() == 1408);  // 8/3 * 512 = 1365.3
  m.feed_forward = 100;
  CHECK(m.feed_forward_width() == 100);
  MoeConfig moe;
  CHECK_FALSE(moe.is_moe_layer(0));
  moe.experts = 4;
  moe.every = 3;
  CHECK_FALSE(moe.is_moe_layer(1));
  CHECK(moe.is_moe_layer(2));
  CHECK(moe.is_moe_layer(5));
}

TEST_CASE("config: durations") {
  StepSizes sizes{.tokens_per_step = 1000, .steps_per_epoch = 7};
  auto steps = [&](const std::string& word) { return Duration::parse(word).steps(sizes); };
  CHECK(steps("2000s") == 2000);
  CHECK(steps("0s") == 0);
  CHECK(steps("1.5ks") == 1500);
  CHECK(steps("3.2Mt") == 3200);
  CHECK(steps("3200001t") == 3201);
  CHECK(steps("1e") == 7);
  CHECK(steps("0.5e") == 4);
  CHECK(steps("1000000000Gt") == 1000000000000000);
  for (std::string word : {"2000s", "3.2Mt", "1e", "0.5e", "1t", "1234567t", "1Gt", "0s", "15kt"})
    CHECK(Duration::parse(word).text() == word);
  for (double value : {0.1, 1e17, 123456789012.0, 2.5e-3, 1e-5}) {
    Duration d{value, Duration::Unit::tokens};
    CHECK(Duration::parse(d.text()) == d);
  }
  // Decimal fractions that no double holds: still whole steps.
  CHECK(steps("1.001ks") == 1001);
  CHECK(Duration::parse("0.07e").steps({.tokens_per_step = 1000, .steps_per_epoch = 100}) == 7);
  std::string form =
      "expected a duration such as 2000s (steps), 3.2Mt (tokens) or 1e (epochs), got ";
  for (auto [word, why] : std::vector<std::pair<std::string, std::string>>{
           {"", "'': it is empty"},
           {"2000", "'2000': the unit s, t or e is missing"},
           {"3M", "'3M': the unit s, t or e is missing behind the suffix"},
           {"3h", "'3h': 'h' is no unit; use s, t or e"},
           {"s", "'s': the number is missing"},
           {"Mt", "'Mt': the number is missing"},
           {"xs", "'xs': 'x' is no number"},
           {"1 s", "'1 s': '1 ' is no number"},
           {"nant", "'nant': 'nan' is no number"},
           {"-1s", "'-1s': it is negative"},
           {"-0s", "'-0s': it is negative"},
           {"1.5s", "'1.5s': steps must be whole"},
           {"9999999999Gt", "'9999999999Gt': it is larger than 1e18"}})
    CHECK_THROWS_WITH(Duration::parse(word), form + why);
}

namespace {

struct Contradiction {
  std::vector<std::string> sets;
  int ranks;
  std::string message;
};

const Contradiction kContradictions[] = {
    {{"moe.experts=3", "parallel.expert=2"},
     2,
     "moe.experts is 3, but parallel.expert is 2: each expert-parallel rank holds "
     "experts/expert experts; use 2 or 4 experts, or parallel.expert: 1"},
    {{"moe.experts=2", "parallel.expert=4"},
     4,
     "moe.experts is 2, but parallel.expert is 4: each expert-parallel rank holds "
     "experts/expert experts; use 4 experts, or parallel.expert: 1"},
    {{"moe.experts=4", "parallel.expert=2"},
     3,
     "parallel.expert is 2, but the program runs on 3 ranks: expert-parallel groups are made "
     "of `expert` ranks each; start a multiple of 2 ranks (mpirun -n 4), or set "
     "parallel.expert to a divisor of 3"},
    {{"parallel.expert=2"},
     2,
     "parallel.expert is 2, but moe.experts is 0: a dense model has no experts to share; use "
     "parallel.expert: 1"},
    {{"model.width=100"},
     1,
     "model.width is 100, but model.heads is 6: each head takes width/heads elements; make "
     "width a multiple of heads, e.g. 102"},
    {{"model.kv_heads=4"},
     1,
     "model.kv_heads is 4, but model.heads is 6: each key/value head serves heads/kv_heads "
     "heads; use a divisor of 6, or 0 for as many as heads"},
    {{"model.positions=rotary", "model.width=30"},
     1,
     "model.positions is rotary, but a head has 5 elements (model.width 30 / model.heads 6): "
     "rotary positions turn pairs of elements; make it even"},
    {{"moe.experts=4", "moe.gate.policy=topk", "moe.gate.k=5"},
     1,
     "moe.gate.k is 5, but moe.experts is 4: a token cannot choose more experts than there "
     "are"},
    {{"moe.experts=1"},
     1,
     "moe.gate.k_max is 2, but moe.experts is 1: a token cannot choose more experts than "
     "there are"},
    {{"moe.experts=1", "moe.gate.policy=random_one_or_two"},
     1,
     "moe.gate.policy is random_one_or_two, but moe.experts is 1: it needs at least 2 "
     "experts"},
    {{"moe.experts=4", "moe.every=7"},
     1,
     "moe.every is 7, but model.layers is 6: no block would hold experts; use at most 6, or "
     "moe.experts: 0 for a dense model"},
    {{"moe.experts=4", "moe.gate.policy=top2", "moe.balance.loss=paper"},
     1,
     "moe.balance.loss is paper, but moe.gate.policy is top2: the paper's loss counts only "
     "tokens with a single expert, of which there would be none; use auto, switch or none"},
    {{"moe.experts=4", "moe.gate.threshold=1", "moe.balance.loss=paper"},
     1,
     "moe.balance.loss is paper, but moe.gate.policy is adaptive with a threshold of 1 or more: "
     "the "
     "paper's loss counts only tokens with a single expert, of which there would be none; use "
     "auto, switch or none"},
    {{"moe.experts=4", "moe.gate.policy=random_one_or_two", "moe.gate.two_expert_share=1",
      "moe.balance.loss=paper"},
     1,
     "moe.balance.loss is paper, but moe.gate.policy is random_one_or_two with "
     "moe.gate.two_expert_share 1: the paper's loss counts only tokens with a single expert, of "
     "which there would be none; use auto, switch or none"},
    {{"train.batch=2", "train.accumulation=2"},
     2,
     "train.batch is 2, but 2 ranks with train.accumulation 2 work on at least 4 samples per "
     "step; raise train.batch to 4 or start fewer ranks"},
    {{"train.length=0e"}, 1, "train.length is 0e: there is nothing to train; give e.g. 2000s"},
    {{"train.optimizer.beta2=1"},
     1,
     "train.optimizer.beta1 and beta2 are 0.9 and 1: both must be below 1"},
    {{"train.stop_at_loss=2"},
     1,
     "train.stop_at_loss is 2, but there is no validation data to measure the loss on; set "
     "data.validation or data.validation_share"},
    {{"data.validation=x.txt", "data.validation_share=0.1"},
     1,
     "data.validation is x.txt, but data.validation_share is 0.1: set one of them"},
    {{"output="}, 1, "output is empty; give the directory of this run"},
};

}  // namespace

TEST_CASE("config: contradictions name the keys and a remedy") {
  for (const auto& [sets, ranks, message] : kContradictions) {
    CAPTURE(message);
    auto problems = validate(read_text("seed: 1", sets), ranks);
    REQUIRE(problems.size() == 1);
    CHECK(problems[0] == message);
  }
  CHECK(validate(RunConfig{}, 1).empty());
  CHECK(validate(read_text("moe: {experts: 8}", {"parallel.expert=2"}), 4).empty());
}

TEST_CASE("config: what just contradicts and what just does not") {
  auto problems = [](const std::vector<std::string>& sets) {
    return validate(read_text("moe: {experts: 4}", sets), 1);
  };
  auto one_about = [&](const std::string& key, const std::vector<std::string>& sets) {
    CAPTURE(sets);
    auto found = problems(sets);
    REQUIRE(found.size() == 1);
    CHECK_THAT(found[0], Catch::Contains(key));
  };
  one_about("train.optimizer.beta1", {"train.optimizer.beta1=1"});
  one_about("train.optimizer.beta1", {"train.optimizer.beta2=1"});
  CHECK(problems({"train.optimizer.beta1=0.999", "train.optimizer.beta2=0.9999"}).empty());
  // The paper's loss looks at tokens with a single expert.
  for (std::string k : {"2", "3", "4"})
    one_about("moe.balance.loss",
              {"moe.gate.policy=topk", "moe.gate.k=" + k, "moe.balance.loss=paper"});
  CHECK(problems({"moe.gate.policy=topk", "moe.gate.k=1", "moe.balance.loss=paper"}).empty());
  CHECK(problems({"moe.gate.policy=top1", "moe.balance.loss=paper"}).empty());
  CHECK(problems({"moe.gate.policy=topk", "moe.gate.k=4", "moe.balance.loss=switch"}).empty());
  CHECK(problems({"moe.gate.policy=top2", "moe.balance.loss=paper", "moe.balance.coefficient=0"})
            .empty());
  // What it is left to fits every policy.
  for (std::string policy : {"top1", "top2", "topk", "adaptive", "random_one_or_two"})
    CHECK(problems({"moe.gate.policy=" + policy}).empty());
  CHECK(problems({"moe.gate.threshold=1"}).empty());
  CHECK(problems({"moe.gate.policy=random_one_or_two", "moe.gate.two_expert_share=1"}).empty());
  one_about("train.stop_at_loss", {"train.stop_at_loss=2"});
  CHECK(problems({"train.stop_at_loss=2", "data.validation=x.txt"}).empty());
  CHECK(problems({"train.stop_at_loss=2", "data.validation_share=0.1"}).empty());
}

TEST_CASE("config: the effective config is readable YAML with comments") {
  std::string text = write_yaml(RunConfig{});
  CHECK(text.find("seed: 1  # of initial weights, data order, dropout and random routing\n") !=
        std::string::npos);
  CHECK(text.find("\nmoe:  # Mixture of Experts") != std::string::npos);
  CHECK(text.find("\n  gate:  # how a token") != std::string::npos);
  size_t widest = 0;
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1)
    widest = std::max(widest, end - begin);
  CHECK(widest <= 100);
  CHECK(write_yaml(read_text(text)) == text);
}

TEST_CASE("config: any mutilated text gives a config or an Error") {
  const std::string good = write_yaml(RunConfig{}, false);
  const std::string noise = "[]{}:,-?*&!|>%@`'\"#\\\n\t \r0aé\xc3";
  uint32_t state = 1;
  auto draw = [&](size_t bound) {
    state = state * 1664525u + 1013904223u;
    return static_cast<size_t>(state >> 8) % bound;
  };
  int errors = 0;
  for (int round = 0; round < 2000; ++round) {
    std::string text = good;
    for (size_t edits = 1 + draw(4); edits > 0; --edits) {
      size_t at = draw(text.size());
      switch (draw(3)) {
        case 0:
          text[at] = noise[draw(noise.size())];
          break;
        case 1:
          text.insert(at, 1, noise[draw(noise.size())]);
          break;
        default:
          text.erase(at, draw(40));
          break;
      }
    }
    ConfigTree tree;
    try {
      tree.add_text(text, "x");
      read_config<RunConfig>(tree);
    } catch (const Error&) {
      ++errors;
    }
  }
  CHECK(errors > 500);
}

TEST_CASE("config: docs/configuration.md is up to date") {
  std::ifstream file(source_path("docs/configuration.md"));
  REQUIRE(file);
  std::string page{std::istreambuf_iterator<char>(file), {}};
  INFO("write it anew: adagate config --reference > docs/configuration.md");
  CHECK((page == configuration_reference()));
}

TEST_CASE("config: every file in configs/ is valid") {
  int files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(source_path("configs"))) {
    if (entry.path().extension() != ".yaml") continue;
    CAPTURE(entry.path());
    ConfigTree tree;
    tree.add_file(entry.path().string());
    CHECK(validate(read_config<RunConfig>(tree), 2).empty());
    ++files;
  }
  CHECK(files >= 4);
}
