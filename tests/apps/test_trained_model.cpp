// A tiny model from the text to its use: tokenize, train, evaluate, generate, and what their
// options do.
#include <cmath>
#include <fstream>

#include "tests/apps/program.h"
#include "tests/apps/workshop.h"

using namespace adagate;
using namespace adagate::program;
using Catch::Contains;

namespace {

// The last value of a key in metrics.jsonl; -1 if there is none.
double last_metric(const std::string& output, const std::string& key) {
  std::string text = workshop().read(output + "/metrics.jsonl");
  size_t at = text.rfind("\"" + key + "\":");
  return at == text.npos ? -1 : std::strtod(text.c_str() + at + key.size() + 3, nullptr);
}

struct Figures {
  double loss = -1, perplexity = -1, experts = -1;
  int64_t targets = -1;
};

Figures evaluated(const std::string& options, bool two_ranks = false) {
  std::string line = "evaluate " + workshop().model() + " --threads 1 " + options;
  Outcome outcome = two_ranks ? run_on_two_ranks(line) : run(line);
  CAPTURE(line, outcome.output);
  CHECK(outcome.status == 0);
  Figures f;
  long targets = -1;
  int read = std::sscanf(outcome.output.c_str(),
                         "loss %lf perplexity %lf targets %ld experts per token %lf", &f.loss,
                         &f.perplexity, &targets, &f.experts);
  CHECK(read == 4);
  CHECK(count_of("perplexity", outcome.output) == 1);
  f.targets = targets;
  return f;
}

std::string generated(const std::string& options) {
  Outcome outcome = run("generate " + workshop().model() + " --threads 1 " + options);
  CHECK(outcome.status == 0);
  return outcome.output;
}

}  // namespace

TEST_CASE("evaluate: the figures of the run's own evaluation, on any number of ranks") {
  Figures own = evaluated("");
  CHECK(own.loss == Approx(last_metric("model", "validation_loss")).margin(6e-6));
  CHECK(own.perplexity == Approx(last_metric("model", "validation_perplexity")).margin(6e-4));
  double single = last_metric("model", "validation_single_expert_share");
  CHECK(own.experts == Approx(2 - single).margin(6e-4));
  CHECK(own.targets == 59);  // the last tenth of 600 tokens, without its first
  for (const Figures& other : {evaluated("--batch 1"), evaluated("", true)}) {
    CHECK(other.loss == Approx(own.loss).margin(2e-5));
    CHECK(other.targets == own.targets);
    CHECK(other.experts == Approx(own.experts).margin(2e-3));
  }
}

TEST_CASE("evaluate: another text, or its middle sample alone") {
  // 21 tokens that were learnt, those of the middle sample among them, and 9 that never occurred.
  workshop().write("mixed", "ab\nab\nab\nab\nab\nab\nab\nzzzzzzzz\n");
  std::string mixed = workshop().path("mixed.tokens");
  REQUIRE(
      run("tokenize " + workshop().path("mixed") + " --documents line --output " + mixed).status ==
      0);
  Figures all = evaluated("--data " + mixed), one = evaluated("--data " + mixed + " --samples 1");
  CHECK(all.targets == 29);
  CHECK(one.targets == 6);
  CHECK(one.loss < 0.1);
  CHECK(all.loss > 1);
  for (const Figures& f : {all, one})
    CHECK(f.perplexity == Approx(std::exp(f.loss)).epsilon(1e-5).margin(6e-4));
  CHECK(evaluated("--data " + mixed + " --samples 100").targets == 29);
  Outcome none = run("evaluate " + workshop().model() + " --data " + workshop().path("nothing"));
  CHECK(none.status == 1);
  CHECK_THAT(none.output, Contains("nothing"));
}

TEST_CASE("generate: what the model has learnt, up to the end of the text or beyond") {
  std::string greedy = "--prompt a --temperature 0 ";
  CHECK(generated(greedy) == "ab\n");
  CHECK(generated(greedy + "--tokens 1") == "ab\n");
  CHECK(generated(greedy + "--ignore-end --tokens 5") == "ab<|endoftext|>ab<|endoftext|>\n");
  CHECK(generated(greedy + "--ignore-end --tokens 20") ==
        "ab<|endoftext|>ab<|endoftext|>ab<|endoftext|>ab<|endoftext|>ab<|endoftext|>ab<|endoftext|>"
        "ab<|endoftext|>\n");
  workshop().write("prompt", "abab");
  CHECK(generated("--temperature 0 --prompt-file " + workshop().path("prompt")) == "abab\n");
  // The most probable token alone, by three ways.
  CHECK(generated("--prompt a --temperature 3 --top-k 1") == "ab\n");
  CHECK(generated("--prompt a --temperature 1 --top-p 0.001") == "ab\n");
  // Hot, it depends on the seed alone.
  std::string hot = "--prompt a --temperature 20 --tokens 12 --seed ";
  CHECK(generated(hot + "1") == generated(hot + "1"));
  CHECK(generated(hot + "1") != generated(hot + "2"));
  Outcome two = run_on_two_ranks("generate " + workshop().model() + " " + greedy);
  CHECK(two.status == 0);
  CHECK(two.output == "ab\n");
  Outcome both = run("generate " + workshop().model() + " --prompt a --prompt-file p");
  CHECK(both.status == 2);
  CHECK(run("generate " + workshop().model() + " --prompt ''").output ==
        "adagate: error: the prompt is empty: give at least one character\n");
}

TEST_CASE("generate: rows of the vocabulary beyond the tokenizer's are never drawn") {
  Outcome padded =
      run(workshop().train("padded", "--set model.vocabulary=2000 --set train.length=1s"));
  CAPTURE(padded.output);
  REQUIRE(padded.status == 0);
  std::string generate = "generate " + workshop().path("padded") + " --prompt a --tokens 60 ";
  for (std::string options : {"--temperature 100", "--temperature 100 --top-k 1900",
                              "--temperature 100 --top-p 0.99", "--temperature 0"}) {
    CAPTURE(options);
    Outcome outcome = run(generate + "--ignore-end " + options);
    CAPTURE(outcome.output);
    CHECK(outcome.status == 0);
    CHECK(outcome.output.size() >= 62);  // of one byte each, or the end of text's letters
  }
}

TEST_CASE("tokenize: what is a document is as asked") {
  workshop().write("parts", "a\nb\n\nc\n");
  std::string file = workshop().path("parts.tokens");
  struct Case {
    const char *options, *figures;
  };
  for (const auto& [options, figures] :
       {Case{"", "8 tokens in 1 documents"}, Case{"--documents file", "8 tokens in 1 documents"},
        Case{"--documents paragraph", "6 tokens in 2 documents"},
        Case{"--documents line", "6 tokens in 3 documents"}}) {
    CAPTURE(options);
    Outcome made =
        run("tokenize " + workshop().path("parts") + " --output " + file + " " + options);
    CHECK(made.status == 0);
    CHECK_THAT(made.output, Contains(figures + std::string(" of 7 bytes")));
    CHECK_THAT(run("tokenize --check " + file).output, Contains(figures));
  }
  CHECK(run("tokenize x --output y --documents page").status == 2);
}

TEST_CASE("tokenize --check: damaged files and those of another tokenizer are told") {
  std::string file = workshop().path("checked"), bpe = "tests/reference/fixtures/tokenizer.json";
  REQUIRE(run("tokenize " + workshop().path("lines") + " --output " + file).status == 0);
  std::string good = workshop().read("checked");
  for (size_t at : {size_t{128}, good.size() / 2, good.size() - 20}) {
    std::string bad = good;
    bad[at] ^= 1;
    workshop().write("checked", bad);
    Outcome told = run("tokenize --check " + file);
    CHECK(told.status == 1);
    CHECK_THAT(told.output, Contains("adagate: error: token file " + file +
                                     ": the tokens are "
                                     "damaged"));
  }
  workshop().write("checked", good);
  CHECK(run("tokenize --check " + file).status == 0);
  Outcome other = run("tokenize --check " + file + " --tokenizer " + bpe);
  CHECK(other.status == 1);
  CHECK_THAT(other.output, Contains("was written with another tokenizer"));
}

TEST_CASE("train --dry-run: the plan for the ranks there are, and nothing is written") {
  Outcome one = run(workshop().train("dry", "--dry-run"));
  CHECK(one.status == 0);
  CHECK_THAT(one.output, Contains("  vocabulary: 257") && Contains("  length: 30s") &&
                             Contains("1 rank = 1 expert-parallel x 1 replica"));
  Outcome two = run_on_two_ranks(workshop().train("dry", "--dry-run --set parallel.expert=2"));
  CHECK(two.status == 0);
  CHECK(count_of("2 ranks = 2 expert-parallel x 1 replica", two.output) == 1);
  CHECK(count_of("mesh ", two.output) == 1);
  CHECK_FALSE(workshop().exists("dry"));
}

TEST_CASE("train --dry-run: tokenizer, data, start and output are checked, nothing is written") {
  Outcome plan = run(workshop().train("dry", "--dry-run"));
  CHECK_THAT(plan.output, Contains("tokenizer    byte of 257 tokens\n") &&
                              Contains("(token file, ") && Contains(", 600 tokens)\n") &&
                              Contains("90 samples, 12 steps in an epoch; 30 steps in all\n") &&
                              Contains("10 samples in an evaluation\n") &&
                              Contains("start        random weights\n") &&
                              Contains("write to     " + workshop().path("dry") + ": config.yaml"));
  struct Case {
    std::string options, message;
  };
  workshop().write("empty", "");
  workshop().write("plain", "text");
  for (const auto& [options, message] : std::vector<Case>{
           {"--set data.train=nothing.txt", "data.train=nothing.txt: nothing.txt does not exist"},
           {"--set data.train=" + workshop().path("empty"), "is empty; name a text"},
           {"--set data.validation_share=0 --set data.validation=nothing",
            "nothing does not exist"},
           {"--set data.tokenizer=nothing", "--set data.tokenizer=nothing: "},
           {"--set checkpoint.resume=nothing", "--set checkpoint.resume=nothing: "},
           {"--set checkpoint.initial_weights=nothing", "checkpoint.initial_weights=nothing: "},
           {"--set model.vocabulary=10", "model.vocabulary is 10, the tokenizer byte has 257"},
           {"--set model.width=100000 --set model.layers=1000", "out of memory before it starts"},
           {"--set model.width=1000000 --set model.layers=10000 --set moe.experts=65536",
            "model.width is 1000000, model.layers 10000 and moe.experts 65536: about "},
           {"--set train.batch=91 --set data.keep_last_batch=false",
            "data.train has 90 samples, no whole batch of 91: lower train.batch or keep"},
           {"--set train.batch=1000000000 --set model.context=10000000",
            "train.batch is 1000000000, but model.context is 10000000: that is "}}) {
    CAPTURE(options);
    Outcome outcome = run(workshop().train("dry", "--dry-run " + options));
    CAPTURE(outcome.output);
    CHECK(outcome.status == 1);
    CHECK(outcome.output.starts_with("adagate: error: "));
    CHECK_THAT(outcome.output, Contains(message));
  }
  CHECK_THAT(run(workshop().train("plain/x", "--dry-run")).output,
             Contains("plain is a file, not a directory"));
  // An output with an earlier run, whose plan says where it would go on.
  workshop().model();
  std::string again = "--dry-run --set train.length=40s --resume=";
  CHECK_THAT(run(workshop().train("model", "--dry-run")).output,
             Contains("holds checkpoints of an earlier run"));
  CHECK(run(workshop().train("model", "--dry-run --overwrite")).status == 0);
  CHECK_THAT(run(workshop().train("model", again + "auto")).output,
             Contains("start        " + workshop().model() + "/checkpoints/step-00000030\n"));
  CHECK_FALSE(workshop().exists("dry"));
}

TEST_CASE("train: a run that no memory holds ends before it has made anything") {
  std::string huge = workshop().train("huge", "--set model.width=100000 --set model.layers=1000");
  for (const Outcome& outcome : {run(huge), run_on_two_ranks(huge)}) {
    CAPTURE(outcome.output);
    CHECK(outcome.status == 1);
    CHECK(count_of("error: out of memory before it starts: a rank takes about ", outcome.output) ==
          1);
    CHECK_FALSE(workshop().exists("huge"));
  }
}

TEST_CASE("train: an earlier run is overwritten only when asked for") {
  std::string first = workshop().train("old", "--set train.length=4s --set checkpoint.every=2s");
  REQUIRE(run(first).status == 0);
  REQUIRE(workshop().exists("old/checkpoints/step-00000004/manifest.json"));
  std::string again =
      workshop().train("old", "--set train.length=3s --set data.validation_share=0");
  Outcome refused = run(again);
  CHECK(refused.status == 1);
  CHECK_THAT(refused.output, Contains("--overwrite"));
  CHECK(last_metric("old", "step") == 4);
  Outcome done = run(again + " --overwrite");
  CAPTURE(done.output);
  CHECK(done.status == 0);
  CHECK(last_metric("old", "step") == 3);
  CHECK(workshop().exists("old/checkpoints/step-00000003"));
  CHECK_FALSE(workshop().exists("old/checkpoints/step-00000004"));
  // The configuration it leaves behind is that of the new run, and is read again as it stands.
  std::string saved = workshop().read("old/config.yaml");
  CHECK_THAT(saved, Contains("  length: 3s"));
  std::string read = run("config " + workshop().path("old/config.yaml")).output;
  CHECK(saved.substr(saved.find('\n') + 1) == read);
  CHECK_THAT(run("evaluate " + workshop().path("old")).output,
             Contains("the run had no validation data: name some with --data"));
}

TEST_CASE("train: a finished run started again under another configuration") {
  workshop().write("auto.yaml", workshop().read("run.yaml") + "checkpoint: {resume: auto}\n");
  auto train = [](const std::string& options) {
    return run("train " + workshop().path("auto.yaml") + " --output " + workshop().path("again") +
               " --set train.length=" + options);
  };
  REQUIRE(train("4s").status == 0);
  std::string yaml = workshop().read("again/config.yaml"),
              metrics = workshop().read("again/metrics.jsonl");
  auto unchanged = [&] {
    CHECK(workshop().read("again/config.yaml") == yaml);
    CHECK(workshop().read("again/metrics.jsonl") == metrics);
  };
  // Nothing to train: a success where nothing else is asked for.
  Outcome same = train("4s --set train.log_every=3");
  CHECK(same.status == 0);
  CHECK_THAT(same.output, Contains("changed since the saved run: train.log_every 10 -> 3") &&
                              Contains("step 4 of 4 is reached already: nothing to train"));
  unchanged();
  for (const std::string length : {"4s", "6s"}) {
    Outcome refused = train(length + " --set moe.gate.threshold=0.2");
    CAPTURE(refused.output);
    CHECK(refused.status == 1);
    CHECK_THAT(refused.output,
               Contains("--set moe.gate.threshold=0.2: moe.gate.threshold is 0.2, but the run "
                        "that saved ") &&
                   Contains(" had 0.1: ") && Contains("--allow-change moe.gate.threshold"));
    unchanged();
  }
  Outcome misspelt = train("6s --allow-change moe.gate.treshold");
  CHECK(misspelt.status == 1);
  CHECK_THAT(misspelt.output, Contains("did you mean 'moe.gate.threshold'?"));
  Outcome allowed = train("6s --set moe.gate.threshold=0.2 --allow-change moe.gate");
  CAPTURE(allowed.output);
  CHECK(allowed.status == 0);
  CHECK_THAT(allowed.output, Contains("changed since the saved run, as allowed: "
                                      "moe.gate.threshold 0.1 -> 0.2"));
  CHECK(workshop().read("again/config-until-00000004.yaml") == yaml);
  CHECK_THAT(workshop().read("again/config.yaml"), Contains("threshold: 0.2"));
  CHECK(count_of("\"type\":\"resume\"", workshop().read("again/metrics.jsonl")) == 1);
  // --overwrite is a new run, whatever the file says; the command line's own word stands.
  Outcome anew = train("3s --overwrite");
  CAPTURE(anew.output);
  CHECK(anew.status == 0);
  CHECK(last_metric("again", "step") == 3);
  CHECK_FALSE(workshop().exists("again/config-until-00000004.yaml"));
  CHECK_FALSE(workshop().exists("again/checkpoints/step-00000006"));
  CHECK_THAT(train("3s --overwrite --resume=auto").output, Contains("nothing to train"));
}

TEST_CASE("train: the learning rate where a finished run is made longer") {
  auto longer = [](const std::string& choice) {
    run_shell("rm -rf " + workshop().path("long"));
    std::string decay = "--set train.schedule.decay=linear ";
    REQUIRE(run(workshop().train("long", decay + "--set train.length=4s")).status == 0);
    return run(workshop().train("long", decay + "--set train.length=8s --resume" + choice));
  };
  Outcome rescaled = longer("");
  CHECK_THAT(rescaled.output, Contains("warning ") &&
                                  Contains("train.length was 4 steps and is 8: ") &&
                                  Contains("rewarm"));
  longer(" --set train.schedule.on_length_change=continue");
  CHECK(last_metric("long", "learning_rate") == Approx(0.003));
}

TEST_CASE("train --resume: goes on to what an uninterrupted run comes to") {
  auto steps = [](int n) { return "--set train.length=" + std::to_string(n) + "s "; };
  REQUIRE(run(workshop().train("whole", steps(7))).status == 0);
  std::string last = "checkpoints/step-00000007/shard-00000-of-00001.safetensors";
  std::string expected = workshop().read("whole/" + last);
  REQUIRE_FALSE(expected.empty());
  // By name of a checkpoint from elsewhere, with the word, and without one.
  REQUIRE(run(workshop().train("part", steps(4))).status == 0);
  Outcome elsewhere =
      run(workshop().train("other", steps(7) + "--resume " + workshop().path("part")));
  CAPTURE(elsewhere.output);
  CHECK(elsewhere.status == 0);
  CHECK(workshop().read("other/" + last) == expected);
  run_shell("cp -r " + workshop().path("part") + " " + workshop().path("part2"));
  for (auto [output, word] : {std::pair{"part", "--resume=auto"}, {"part2", "--resume"}}) {
    Outcome resumed = run(workshop().train(output, steps(7) + word));
    CAPTURE(resumed.output, word);
    CHECK(resumed.status == 0);
    CHECK(workshop().read(output + ("/" + last)) == expected);
    CHECK(last_metric(output, "step") == 7);
    CHECK(last_metric(output, "loss") == last_metric("whole", "loss"));
    CHECK(count_of("\"step\":4,\"type\":\"step\"",
                   workshop().read(output + std::string("/metrics.jsonl"))) == 1);
  }
}

namespace {
// The loss that `evaluate` prints for a run; -1 and a failed check where it fails.
double evaluated_loss(const std::string& name, const std::string& options = "") {
  Outcome outcome = run("evaluate " + workshop().path(name) + " --threads 1 " + options);
  CAPTURE(outcome.output);
  CHECK(outcome.status == 0);
  double loss = -1;
  size_t at = outcome.output.find("loss ");  // behind what was tokenized
  REQUIRE(at != std::string::npos);
  CHECK(std::sscanf(outcome.output.c_str() + at, "loss %lf", &loss) == 1);
  return loss;
}
}  // namespace

TEST_CASE("a moved run: evaluated, read and gone on with without what it was trained from") {
  std::string words;
  for (int i = 0; i < 300; ++i) words += "first citizen " + std::to_string(i) + "\n";
  run_shell("mkdir -p " + workshop().path("place") +
            " && cp tests/reference/fixtures/tokenizer.json " + workshop().path("place/bpe.json"));
  workshop().write("place/train.txt", words);
  workshop().write("place/valid.txt", words.substr(0, 1500));
  std::string settings =
      " --set data.tokenizer=place/bpe.json --set data.train=place/train.txt"
      " --set checkpoint.resume=auto --set train.length=";
  auto in_workshop = [](const std::string& arguments) {
    return run_shell("cd " + workshop().path("") + " && " ADAGATE_PROGRAM " " + arguments);
  };
  for (const bool apart : {false, true}) {
    CAPTURE(apart);
    std::string data =
        apart ? " --set data.validation_share=0 --set data.validation=place/valid.txt" : "";
    run_shell("rm -rf " + workshop().path("old_place") + " " + workshop().path("new_place"));
    Outcome trained = in_workshop("train run.yaml --output old_place" + data + settings + "4s");
    CAPTURE(trained.output);
    REQUIRE(trained.status == 0);
    double loss = last_metric("old_place", "validation_loss");
    run_shell("mv " + workshop().path("old_place") + " " + workshop().path("new_place"));
    run_shell("mv " + workshop().path("place") + " " + workshop().path("hidden"));
    // From another working directory, and with nothing left of texts and tokenizer.
    CHECK(evaluated_loss("new_place") == Approx(loss).margin(1e-5));
    CHECK(evaluated_loss("new_place/checkpoints/step-00000004") == Approx(loss).margin(1e-5));
    CHECK(run("generate " + workshop().path("new_place") + " --tokens 2 --prompt first").status ==
          0);
    CHECK_THAT(run("inspect " + workshop().path("new_place")).output, Contains("sound"));
    // Without the tokens that it kept, the message says what is missing, from where, and the way
    // out.
    run_shell("mv " + workshop().path("new_place/cache") + " " + workshop().path("kept"));
    Outcome missing = run("evaluate " + workshop().path("new_place"));
    CHECK(missing.status == 1);
    CHECK_THAT(missing.output, Contains(apart ? "data.validation: place/valid.txt does not exist"
                                              : "data.train: place/train.txt does not exist") &&
                                   Contains("looked for from ") && Contains("--data"));
    run_shell("mv " + workshop().path("kept") + " " + workshop().path("new_place/cache"));
    run_shell("mv " + workshop().path("hidden") + " " + workshop().path("place"));
    // Its own configuration means the run where it is now.
    Outcome resumed = in_workshop("train new_place/config.yaml --set train.length=6s");
    CAPTURE(resumed.output);
    CHECK(resumed.status == 0);
    CHECK_THAT(resumed.output, Contains("at step 4"));
    CHECK(last_metric("new_place", "step") == 6);
    CHECK_FALSE(workshop().exists("old_place"));
    CHECK_THAT(workshop().read("new_place/config.yaml"), Contains("new_place"));
  }
}

TEST_CASE("a configuration beside other files means the output it names") {
  run_shell("mkdir -p " + workshop().path("mine/checkpoints"));
  workshop().write("mine/config.yaml", workshop().read("run.yaml") + "output: elsewhere\n");
  CHECK_THAT(run("config " + workshop().path("mine/config.yaml")).output,
             Contains("output: elsewhere"));
  // A copy of a run's, as a start for another.
  std::string kept = workshop().model() + "/config.yaml";
  run_shell("cp " + kept + " " + workshop().path("copy.yaml"));
  CHECK_THAT(run("config " + workshop().path("copy.yaml")).output,
             Contains("output: " + workshop().model()));
}

TEST_CASE("evaluate: a text that has changed under its name is not taken for the run's") {
  std::string text = workshop().path("changing");
  auto words = [](int first) {
    std::string all;
    for (int i = first; i < first + 200; ++i) all += "word " + std::to_string(i) + "\n";
    return all;
  };
  workshop().write("changing", words(0));
  REQUIRE(
      run(workshop().train("changed", "--set train.length=2s --set data.train=" + text)).status ==
      0);
  double loss = last_metric("changed", "validation_loss");
  workshop().write("changing", words(500));
  CHECK(evaluated_loss("changed") == Approx(loss).margin(1e-5));
  run_shell("rm -r " + workshop().path("changed/cache"));
  Outcome other = run("evaluate " + workshop().path("changed"));
  CHECK(other.status == 1);
  CHECK_THAT(other.output, Contains("is not the one that the run was evaluated on"));
  workshop().write("changing", words(0));
  CHECK(evaluated_loss("changed") == Approx(loss).margin(1e-5));
}
