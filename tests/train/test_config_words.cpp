// What a YAML scalar stands for: booleans, numbers, paths; and values given to --set.
#include <functional>

#include "tests/support/catch.h"
#include "tests/support/environment.h"
#include "tests/support/message_of.h"
#include "tests/support/temp_folder.h"
#include "train/config/config_writer.h"
#include "train/config/run_config.h"
#include "train/config/yaml_loader.h"

using namespace adagate;

namespace {

RunConfig read_text(const std::string& text) {
  ConfigTree tree;
  tree.add_text(text, "x.yaml");
  return read_config<RunConfig>(tree);
}

RunConfig read_set(const std::string& assignment) {
  ConfigTree tree;
  tree.add_override(assignment);
  return read_config<RunConfig>(tree);
}

}  // namespace

TEST_CASE("config: booleans and numbers are those of YAML 1.2") {
  for (const char* word : {"true", "True", "TRUE"}) {
    CHECK(read_text("model: {bias: " + std::string(word) + "}").model.bias);
    CHECK(read_set("model.bias=" + std::string(word)).model.bias);
  }
  for (const char* word : {"false", "False", "FALSE"})
    CHECK_FALSE(read_text("model:\n  bias: " + std::string(word) + "\n").model.bias);
  for (auto [word, value] :
       {std::pair{"16", 16}, {"+16", 16}, {"0x1F", 31}, {"0o17", 15}, {"007", 7}, {"0", 0}})
    CHECK(read_text("seed: " + std::string(word)).seed == value);
  for (auto [word, value] : {std::pair{"5.", 5.0}, {".5", 0.5}, {"+1e-1", 0.1}, {"0x2", 2.0}})
    CHECK(read_text("moe: {gate: {threshold: " + std::string(word) + "}}").moe.gate.threshold ==
          value);
  for (const char* nothing : {"", "~", "null", "Null", "NULL"}) {
    CHECK(read_text("data: {train: " + std::string(nothing) + "}").data.train.empty());
    CHECK(read_set("data.train=" + std::string(nothing)).data.train.empty());
  }
  CHECK(read_set("data.train='null'").data.train == "null");
  struct Case {
    const char *assignment, *message;
  };
  for (auto [assignment, message] : std::initializer_list<Case>{
           {"model.bias=yes", "expected true or false, got 'yes': write true"},
           {"model.bias=On", "expected true or false, got 'On': write true"},
           {"model.bias=NO", "expected true or false, got 'NO': write false"},
           {"model.bias=off", "expected true or false, got 'off': write false"},
           {"model.bias=1", "expected true or false, got '1'"},
           {"model.bias=tRUE", "expected true or false, got 'tRUE'"},
           {"model.bias=\"true\"", "expected true or false, got 'true' in quotes"},
           {"seed=0x", "expected an integer, got '0x'"},
           {"seed=-0x1", "expected an integer, got '-0x1'"},
           {"seed=0x1.8", "expected an integer, got '0x1.8'"},
           {"seed=0o8", "expected an integer, got '0o8'"},
           {"seed=1_000", "expected an integer, got '1_000'"},
           {"seed=0x8000000000000000",
            "'0x8000000000000000' is beyond the range of a 64-bit number"},
           {"moe.gate.threshold=-.Inf", "expected a finite number, got '-.Inf'"},
           {"moe.gate.threshold=.nan", "expected a finite number, got '.nan'"},
           {"precision=BF16", "expected one of fp32, bf16, got 'BF16'; did you mean 'bf16'?"}})
    CHECK(message_of([&] { read_set(assignment); }) ==
          fmt::format("--set {}: {}", assignment, message));
}

TEST_CASE("config: the value of --set is taken whole") {
  for (const char* word :
       {"run #1", "#1",       "a # b", "*a",    "&a",    "!a",  "!!str a", "%a",  "@a",  "`a",
        "a: b",   "a:",       "- a",   "-",     "--- a", "? a", "|",       ">",   ">-",  "...",
        "it's",   "5\" disk", "a, b]", "a\\tb", "<<",    "=",   "a=b",     "1e5", "true"}) {
    CAPTURE(word);
    CHECK(read_set("output=" + std::string(word)).output == word);
    CHECK(read_set("output= \t" + std::string(word) + " \r\n").output == word);
  }
  for (auto [written, text] : {std::pair{"\"run \"", "run "},
                               {"' #1'", " #1"},
                               {"'it''s'", "it's"},
                               {"\"a\\tb\"", "a\tb"},
                               {"\"a # b\"", "a # b"},
                               {"\"~\"", ""}})
    if (*text) CHECK(read_set("output=" + std::string(written)).output == text);
  CHECK(read_set("moe={gate: {threshold: 0.25}, experts: 4}").moe.gate.threshold == 0.25);
  struct Case {
    const char *assignment, *message;
  };
  constexpr const char* kComment =
      "# behind a space begins a comment in YAML; put the text in quotes";
  for (auto [assignment, message] : std::initializer_list<Case>{
           {"output='a' #b", kComment},
           {"moe={experts: 4} # four", kComment},
           {"output=[a #b]", kComment},
           {"output=a\nb", "the value has more than one line"},
           {"output=[a]", "expected a path, got a list"},
           {"moe.gate=threshold: 0.2",
            "expected a mapping of keys (`{key: value}`), got 'threshold: 0.2'"}}) {
    std::string shown = quote(assignment);
    CHECK(message_of([&] { read_set(assignment); }) ==
          fmt::format("--set {}: {}", shown.substr(1, shown.size() - 2), message));
  }
  // What stands behind the quotes is not lost, either.
  CHECK(message_of([] { read_set("output='a' b"); }) != "no error");
  CHECK(message_of([] { read_set("output=[a] b"); }) != "no error");
  CHECK(message_of([] { read_set("moe={experts: 4} b"); }) != "no error");
}

TEST_CASE("config: files from other systems and programs") {
  CHECK(read_text("\xef\xbb\xbfseed: 5\r\nmodel:\r\n  layers: 3\r\n").model.layers == 3);
  CHECK(read_text("\xef\xbb\xbfseed: 5\r\noutput: a b\r\n").output == "a b");
  CHECK(read_text("%YAML 1.2\n---\nseed: 5\n...\n").seed == 5);
  CHECK(read_text("seed: &s 5\n").seed == 5);
  struct Case {
    const char *text, *message;
  };
  for (auto [text, message] : std::initializer_list<Case>{
           {"seed: !!int 5\n",
            "x.yaml:1: tags (!name) are not supported; write the value alone, a text in quotes"},
           {"seed: 5\nmodel: !!python/object {}\n",
            "x.yaml:2: tags (!name) are not supported; write the value alone, a text in quotes"},
           {"a: &x {seed: 1}\n<<: *x\n",
            "x.yaml:2: aliases (*name) are not supported; write the value again, or use base"},
           {"{output: ${HOME}/x}\n",
            "x.yaml:1: YAML syntax: end of map flow not found; put a path with ${ in quotes"}})
    CHECK(message_of([&] { read_text(text); }) == message);
}

TEST_CASE("config: ~ and variables are expanded in the keys that are paths, in no other") {
  TempFolder folder;
  Variable home("HOME", "/home/me"), scratch("WORDS_TEST_DIR", "/scratch");
  Variable here("WORDS_TEST_HERE", folder.path("").c_str());
  RunConfig c = read_text(
      "output: ~/runs/x\n"
      "data: {tokenizer: '${WORDS_TEST_DIR}/gpt2', train: $WORDS_TEST_DIR/t, validation: ~/v}\n"
      "checkpoint: {resume: ~/runs/y, initial_weights: $$x}\n");
  CHECK(c.output == "/home/me/runs/x");
  CHECK(c.data.tokenizer == "/scratch/gpt2");
  CHECK(c.data.train == "/scratch/t");
  CHECK(c.data.validation == "/home/me/v");
  CHECK(c.checkpoint.resume == "/home/me/runs/y");
  CHECK(c.checkpoint.initial_weights == "$x");
  CHECK(read_set("output=~/x").output == "/home/me/x");
  std::string written = write_yaml(c);
  CHECK_THAT(written, Catch::Contains("output: /home/me/runs/x  #"));
  CHECK_THAT(written, Catch::Contains("initial_weights: \"$$x\"\n"));
  RunConfig again = read_text(written);
  CHECK(again.checkpoint.initial_weights == "$x");
  CHECK(write_yaml(again) == written);
  CHECK(message_of([] { read_text("precision: $WORDS_TEST_DIR"); }) ==
        "x.yaml:1: precision: expected one of fp32, bf16, got '$WORDS_TEST_DIR'");

  ConfigTree tree;
  tree.add_text_value("output", "~/o", "--output");
  CHECK(read_config<RunConfig>(tree).output == "/home/me/o");
  tree.add_text_value("output", "${WORDS_TEST_NONE}/o", "--output");
  std::string unset =
      "the environment variable WORDS_TEST_NONE is not set; $$ stands for the character $";
  CHECK(message_of([&] { read_config<RunConfig>(tree); }) == "--output: " + unset);
  CHECK(message_of([] { read_text("seed: 1\noutput: ${WORDS_TEST_NONE}/x\n"); }) ==
        "x.yaml:2: output: " + unset);
  CHECK(message_of([] { read_set("data.train=$WORDS_TEST_NONE"); }) ==
        "--set data.train=$WORDS_TEST_NONE: " + unset);

  folder.write("base.yaml", "seed: 77\n");
  ConfigTree based;
  based.add_file(folder.write("a/b.yaml", "base: ${WORDS_TEST_HERE}/base.yaml\n"));
  CHECK(read_config<RunConfig>(based).seed == 77);
  std::string wrong = folder.write("c.yaml", "base: $WORDS_TEST_NONE\n");
  CHECK(message_of([&] { ConfigTree().add_file(wrong); }) == wrong + ":1: base: " + unset);
}
