// Wrong configurations: the exact message of each.
#include <cstdlib>
#include <functional>

#include "tests/support/catch.h"
#include "tests/support/message_of.h"
#include "tests/support/temp_folder.h"
#include "train/config/run_config.h"
#include "train/config/yaml_loader.h"

using namespace adagate;

namespace {

std::string message_of_text(const std::string& text) {
  return message_of([&] {
    ConfigTree tree;
    tree.add_text(text, "x.yaml");
    read_config<RunConfig>(tree);
  });
}

std::string message_of_set(const std::string& assignment) {
  return message_of([&] {
    ConfigTree tree;
    tree.add_override(assignment);
    read_config<RunConfig>(tree);
  });
}

std::string message_of_file(const std::string& path) {
  return message_of([&] {
    ConfigTree tree;
    tree.add_file(path);
    read_config<RunConfig>(tree);
  });
}

}  // namespace

TEST_CASE("config: wrong keys are named with the nearest one") {
  struct Case {
    std::string text, message;
  };
  for (const auto& [text, message] : std::vector<Case>{
           {"moe:\n  gate:\n    treshold: 0.1\n",
            "x.yaml:3: unknown key 'treshold' in moe.gate; did you mean 'threshold'?"},
           {"modle: {}\n", "x.yaml:1: unknown key 'modle'; did you mean 'model'?"},
           {"train:\n  learning_rate: 1\n",
            "x.yaml:2: unknown key 'learning_rate' in train; did you mean "
            "'train.optimizer.learning_rate'?"},
           {"parallel:\n  qqqqqqqq: 1\n",
            "x.yaml:2: unknown key 'qqqqqqqq' in parallel; the keys are expert, threads, "
            "timeout, start_timeout"},
           {"base: other.yaml\n",
            "x.yaml:1: unknown key 'base'; the keys are seed, task, device, precision, output, "
            "log_level, "
            "model, "
            "moe, parallel, data, train, checkpoint"},
           {"seed: 1\ntrain:\n  batch: 8\n\n  batch: 9\n",
            "x.yaml:5: duplicate key 'batch'; it was set at x.yaml:3 already"},
           {"? [a, b]\n: 1\n", "x.yaml:1: a key must be a word, not a list or mapping"},
           {": 1\n", "x.yaml:1: a key is missing before ':'"},
       }) {
    CAPTURE(text);
    CHECK(message_of_text(text) == message);
  }
}

TEST_CASE("config: wrong values say what was expected and what was found") {
  struct Case {
    std::string text, message;
  };
  for (const auto& [text, message] : std::vector<Case>{
           {"moe: {gate: {threshold: abc}}",
            "x.yaml:1: moe.gate.threshold: expected a number, got 'abc'"},
           {"moe: {gate: {threshold: .inf}}",
            "x.yaml:1: moe.gate.threshold: expected a finite number, got '.inf'"},
           {"moe: {gate: {threshold: inf}}",
            "x.yaml:1: moe.gate.threshold: expected a finite number, got 'inf'"},
           {"moe: {gate: {threshold: 1e999}}",
            "x.yaml:1: moe.gate.threshold: '1e999' is beyond the range of a 64-bit number"},
           {"model: {layers: 2.5}", "x.yaml:1: model.layers: expected an integer, got '2.5'"},
           {"model: {layers: '2'}",
            "x.yaml:1: model.layers: expected an integer, got '2' in quotes"},
           {"model: {layers: }", "x.yaml:1: model.layers: expected an integer, got nothing"},
           {"model: {layers: [1, 2]}", "x.yaml:1: model.layers: expected an integer, got a list"},
           {"model:\n  layers:\n    a: 1\n",
            "x.yaml:2: model.layers: expected an integer, got a mapping of keys"},
           {"model: {layers: 99999999999999999999}",
            "x.yaml:1: model.layers: '99999999999999999999' is beyond the range of a 64-bit "
            "number"},
           {"model: {layers: 0}", "x.yaml:1: model.layers: must be between 1 and 10000, got 0"},
           {"model: {dropout: 1.5}",
            "x.yaml:1: model.dropout: must be between 0 and 0.999, got 1.5"},
           {"train: {log_every: 0}", "x.yaml:1: train.log_every: must be at least 1, got 0"},
           {"model: {norm_epsilon: 0}",
            "x.yaml:1: model.norm_epsilon: must be greater than 0, got 0"},
           {"model: {bias: yes}",
            "x.yaml:1: model.bias: expected true or false, got 'yes': write true"},
           {"moe: {gate: {policy: adaptve}}",
            "x.yaml:1: moe.gate.policy: expected one of top1, top2, topk, adaptive, "
            "random_one_or_two, got 'adaptve'; did you mean 'adaptive'?"},
           {"precision: float8", "x.yaml:1: precision: expected one of fp32, bf16, got 'float8'"},
           {"model: 7",
            "x.yaml:1: model: expected a mapping of keys (`model:` and indented `key: value` "
            "lines), got '7'"},
           {"train: {length: 2000}",
            "x.yaml:1: train.length: expected a duration such as 2000s (steps), 3.2Mt (tokens) or "
            "1e (epochs), got '2000': the unit s, t or e is missing"},
           {"output: \"a\\x01\\e\"\nseed: \"\\x01\"",
            "x.yaml:2: seed: expected an integer, got '\\x01' in quotes"},
       }) {
    CAPTURE(text);
    CHECK(message_of_text(text) == message);
  }
  CHECK(message_of_text("seed: x\nmodel:\n  heads: -1\nmoo: 2\n") ==
        "x.yaml:1: seed: expected an integer, got 'x'\n"
        "x.yaml:3: model.heads: must be between 1 and 100000, got -1\n"
        "x.yaml:4: unknown key 'moo'; did you mean 'moe'?");
}

TEST_CASE("config: text that is no configuration") {
  struct Case {
    std::string text, message;
  };
  for (const auto& [text, message] : std::vector<Case>{
           {"", "x.yaml: is empty; expected keys such as `train:`"},
           {"# nothing\n", "x.yaml: is empty; expected keys such as `train:`"},
           {"- 1\n- 2\n", "x.yaml:1: expected a mapping of keys (`key: value` lines), got a list"},
           {"hello", "x.yaml:1: expected a mapping of keys (`key: value` lines), got 'hello'"},
           {"a: 1\nb: [1, 2\n", "x.yaml:3: YAML syntax: end of sequence flow not found"},
           {"a: b: c\n", "x.yaml:1: YAML syntax: illegal map value"},
           {"seed: 1\n---\nseed: 2\n", "x.yaml: holds more than one YAML document"},
           {"a: &x [1]\nb: *x\n",
            "x.yaml:2: aliases (*name) are not supported; write the value again, or use base"},
           {std::string("seed: 1\nmodel: \0\n", 17),
            "x.yaml:2: holds the byte 0x00, which no text has; is this the right file?"},
           {"seed: 1\n\xff\xfe",
            "x.yaml:2: holds the byte 0xff, which is not UTF-8: write it in that encoding"},
           {"model:\n\twidth: 3\n",
            "x.yaml:2: YAML syntax: illegal map value; the line begins with a tab: indent it with "
            "spaces"},
           {"output: caf\xe9\n",
            "x.yaml:1: holds the byte 0xe9, which is not UTF-8: write it in that encoding"},
           {std::string(300000, 'a'), "x.yaml: is larger than 256 KiB; is this a YAML file?"},
           {std::string(100000, '['), "x.yaml:1: nested more than 32 levels deep"},
       }) {
    CAPTURE(text.substr(0, 100));
    CHECK(message_of_text(text) == message);
  }
  std::string many;
  for (int i = 0; i < 5000; ++i) many += fmt::format("k{}: 1\n", i);
  CHECK(message_of_text(many) == "x.yaml: more than 4096 values");
}

TEST_CASE("config: a message is told where the keys it names were written") {
  ConfigTree tree;
  tree.add_text("seed: 3\nmoe:\n  experts: 8\noutput: x\n", "x.yaml");
  tree.add_override("data.train=a.txt");
  tree.add_text_value("output", "y", "--output");
  auto places = [&](const char* message) { return tree.with_places(message); };
  CHECK(places("moe.experts is 8, but parallel.expert is 3: no") ==
        "x.yaml:3: moe.experts is 8, but parallel.expert is 3: no");
  CHECK(places("data.train has 3, but moe.experts is 8, moe.experts") ==
        "--set data.train=a.txt, x.yaml:3: data.train has 3, but moe.experts is 8, moe.experts");
  CHECK(places("data.train: a.txt is empty") == "--set data.train=a.txt: a.txt is empty");
  CHECK(places("output y holds: moe.experts") == "--output: output y holds: moe.experts");
  for (const char* other : {"the output: moe.experts", "moe: x", "moe.gate.k: x", "x", "", ": ",
                            "seeds: x", "moe.experts.k: x", ".: x"})
    CHECK(places(other) == other);
}

TEST_CASE("config: wrong --set") {
  struct Case {
    std::string text, message;
  };
  for (const auto& [text, message] : std::vector<Case>{
           {"moe.gate.threshold=x", "--set moe.gate.threshold=x: expected a number, got 'x'"},
           {"moe.gate.treshold=1",
            "--set moe.gate.treshold=1: unknown key 'treshold' in moe.gate; did you mean "
            "'threshold'?"},
           {"moe={gate: {k: x}}",
            "--set moe={gate: {k: x}}: moe.gate.k: expected an integer, got 'x'"},
           {"moe.gate.threshold",
            "--set 'moe.gate.threshold': expected key.path=value, e.g. train.batch=16"},
           {"=1",
            "--set =1: a part of the key is empty; expected key.path=value, e.g. "
            "train.batch=16"},
           {"moe..k=1",
            "--set moe..k=1: a part of the key is empty; expected key.path=value, e.g. "
            "train.batch=16"},
           {"moe=1", "--set moe=1: expected a mapping of keys (`{key: value}`), got '1'"},
           {"seed=", "--set seed=: expected an integer, got nothing"},
           {"seed.x=1", "--set seed.x=1: seed: expected an integer, got a mapping of keys"},
           {"seed=[1", "--set seed=[1: YAML syntax: end of sequence flow not found"},
       }) {
    CAPTURE(text);
    CHECK(message_of_set(text) == message);
  }
}

TEST_CASE("config: wrong files") {
  TempFolder files;
  std::string missing = files.path("none.yaml");
  CHECK(message_of_file(missing) == missing + ": no such file");
  CHECK(message_of_file(files.path("")) == files.path("") + ": is a directory, not a YAML file");
  std::string empty = files.write("empty.yaml", "");
  CHECK(message_of_file(empty) == empty + ": is empty; expected keys such as `train:`");
  CHECK(message_of_file("/dev/zero") == "/dev/zero: is binary data, not text; name a text file");
  std::string large = files.write("large.yaml", std::string(300 << 10, '#'));
  CHECK(message_of_file(large) == large + ": is larger than 256 KiB; is this a YAML file?");

  std::string a = files.write("a.yaml", "base: sub/b.yaml\n");
  std::string b = files.write("sub/b.yaml", "base: ../a.yaml\n");
  CHECK(message_of_file(a) ==
        files.path("a.yaml") + ": is its own base: a.yaml -> b.yaml -> a.yaml");
  std::string self = files.write("self.yaml", "base: ./self.yaml\n");
  CHECK(message_of_file(self) == self + ": is its own base: self.yaml -> self.yaml");
  std::string lost = files.write("lost.yaml", "seed: 1\nbase: none.yaml\n");
  CHECK(message_of_file(lost) == lost + ":2: base: no such file: " + missing);
  std::string list = files.write("list.yaml", "base: [[x]]\n");
  CHECK(message_of_file(list) ==
        list + ":1: base: expected the path of a YAML file or a list of them");
  // The file that holds the wrong key is named, not the one that includes it.
  std::string wrong = files.write("wrong.yaml", "sead: 1\n");
  std::string user = files.write("user.yaml", "base: wrong.yaml\nseed: 2\n");
  CHECK(message_of_file(user) == wrong + ":1: unknown key 'sead'; did you mean 'seed'?");
  // Twice the same base, doubled at each level, ends.
  files.write("d0.yaml", "seed: 1\n");
  for (int i = 1; i <= 20; ++i)
    files.write(fmt::format("d{}.yaml", i), fmt::format("base: [d{0}.yaml, d{0}.yaml]\n", i - 1));
  CHECK(message_of_file(files.path("d20.yaml")).find("more than 64 configuration files") !=
        std::string::npos);
}
