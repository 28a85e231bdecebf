// The program as a user meets it: exit status and output of whole command lines, alone and on two
// ranks.
#include <cstdlib>
#include <filesystem>

#include "tests/apps/program.h"
#include "tests/support/temp_folder.h"

using namespace adagate::program;
using adagate::TempFolder;

namespace {

struct WrongLine {
  std::string arguments;
  int status;
  std::string message;
};

const WrongLine kWrongLines[] = {
    {"", 2, "no command is given (see adagate --help)"},
    {"confg x.yaml", 2, "unknown command 'confg'; did you mean 'config'? (see adagate --help)"},
    {"--verson", 2, "unknown option '--verson'; did you mean '--version'? (see adagate --help)"},
    {"config --referense", 2,
     "unknown option '--referense'; did you mean '--reference'? (see adagate config --help)"},
    {"config --set", 2, "--set needs a value: --set KEY=VALUE (see adagate config --help)"},
    {"config --ranks 0", 2,
     "--ranks: must be between 1 and 1000000, got 0 (see adagate config --help)"},
    {"config configs/none.yaml", 1, "configs/none.yaml: no such file"},
    {"config configs/quickstart.yaml train.batch=4", 1,
     "train.batch=4: no such file; is --set missing before it?"},
    {"config --output caf\xe9 configs/quickstart.yaml", 1,
     "--output: holds the byte 0xe9, which is not UTF-8: write it in that encoding"},
    {"generate", 2,
     "RUN, the directory of a run or a checkpoint, is required (see adagate generate --help)"},
    {"inspect configs/quickstart.yaml", 1,
     "configs/quickstart.yaml: is no token file, tensor file, tokenizer or checkpoint; 'adagate "
     "config' checks a configuration"},
    {"inspect docs", 1, "docs: holds neither a run, nor checkpoints, tensor files or a tokenizer"},
    {"config configs", 1, "configs: is a directory, not a YAML file"},
    {"config configs/quickstart.yaml --set moe.gate.treshold=0.2", 1,
     "--set moe.gate.treshold=0.2: unknown key 'treshold' in moe.gate; did you mean 'threshold'?"},
    {"config configs/quickstart.yaml --set moe.experts=3 --set parallel.expert=2 --ranks 2", 1,
     "--set moe.experts=3, --set parallel.expert=2: moe.experts is 3, but parallel.expert is 2: "
     "each expert-parallel rank holds experts/expert "
     "experts; use 2 or 4 experts, or parallel.expert: 1"},
};

}  // namespace

TEST_CASE("command line: a wrong one gives one message and a non-zero status") {
  for (const auto& [arguments, status, message] : kWrongLines) {
    CAPTURE(arguments);
    Outcome outcome = run(arguments);
    CHECK(outcome.status == status);
    CHECK(outcome.output == "adagate: error: " + message + "\n");
  }
}

TEST_CASE("command line: a wrong value of an option is told as one of the configuration") {
  for (const auto& [arguments, message] : std::vector<std::pair<std::string, std::string>>{
           {"generate x --seed -1", "--seed: must be at least 0, got -1"},
           {"generate x --seed 99999999999999999999",
            "--seed: '99999999999999999999' is beyond the range of a 64-bit number"},
           {"generate x --tokens 1.5", "--tokens: expected an integer, got '1.5'"},
           {"generate x --tokens 0", "--tokens: must be between 1 and 1000000000, got 0"},
           {"generate x --temperature inf", "--temperature: expected a finite number, got 'inf'"},
           {"generate x --temperature 101", "--temperature: must be between 0 and 100, got 101"},
           {"generate x --top-p 0", "--top-p: must be between 0.0001 and 1, got 0"},
           {"generate x --threads 5000", "--threads: must be between 0 and 4096, got 5000"},
           {"generate x --seed 1 --seed 2", "--seed is given 2 times; give it once"},
           {"generate x --prompt a --prompt-file b",
            "--prompt and --prompt-file cannot be given together"},
           {"generate ''", "RUN: the path is empty"},
           {"config --output ''", "--output: the path is empty"},
           {"evaluate x --samples -1", "--samples: must be between 0 and 1000000000000, got -1"},
           {"tokenize x --documents word",
            "--documents: expected one of file, paragraph, line, got 'word'"},
           {"tokenize '$ADAGATE_NONE/x' --output y",
            "INPUT: the environment variable ADAGATE_NONE is not set; $$ stands for the character "
            "$"},
           {"inspect '~no-such-user'",
            "PATH: ~no-such-user is the home directory of a user, but no user has that name; a "
            "file that is called so is written ./~no-such-user"},
           {"config --ranks two", "--ranks: expected an integer, got 'two'"},
           {"bench --threads -1", "--threads: must be between 0 and 4096, got -1"},
           {"bench --type f16",
            "--type: expected one of f32, bf16, got 'f16'; did you mean 'bf16'?"},
           {"bench --section moe,all",
            "--section: expected one of kernels, moe, communicator, got 'all'"},
           {"completion csh",
            "SHELL: expected one of bash, zsh, fish, got 'csh'; did you mean 'zsh'?"},
       }) {
    CAPTURE(arguments);
    Outcome outcome = run(arguments);
    CHECK(outcome.status == 2);
    std::string command = arguments.substr(0, arguments.find(' '));
    CHECK(outcome.output ==
          "adagate: error: " + message + " (see adagate " + command + " --help)\n");
  }
}

TEST_CASE("command line: an empty value is not taken from the next word") {
  for (std::string option : {"--output", "--set", "--ranks"}) {
    Outcome outcome = run("config " + option + "= configs/quickstart.yaml");
    CHECK(outcome.status == 2);
    CHECK(outcome.output ==
          "adagate: error: " + option + ": the value is empty (see adagate --help)\n");
  }
}

TEST_CASE("command line: ~ and variables in the paths of options") {
  TempFolder folder;
  folder.write("text", "some text");
  auto in_home = [&](const std::string& arguments) {
    return run_shell("export HOME=" + folder.path().string() + " TOKENS=t; " ADAGATE_PROGRAM " " +
                     arguments);
  };
  CHECK(in_home("tokenize '~/text' --output='${HOME}/x.$TOKENS' --tokenizer byte").status == 0);
  CHECK(std::filesystem::exists(folder.path("x.t")));
  CHECK(in_home("tokenize --check --tokenizer=byte '~/x.$TOKENS'").status == 0);
  CHECK(in_home("inspect '~/x.t'").status == 0);
  folder.write("c.yaml", "output: ~/runs/$TOKENS\n");
  Outcome config = in_home("config '~/c.yaml'");
  CHECK(config.output.find("output: " + folder.path("runs/t") + "\n") != std::string::npos);
  Outcome option = in_home("config --output='~/o'");
  CHECK(option.output.find("output: " + folder.path("o") + "\n") != std::string::npos);
  CHECK(in_home("config '--output=run #1'").output.find("output: \"run #1\"  #") !=
        std::string::npos);
  CHECK(in_home("config --output='${NONE}/o'").output ==
        "adagate: error: --output: the environment variable NONE is not set; $$ stands for the "
        "character $\n");
}

TEST_CASE("command line: on two ranks the message comes once, soon") {
  for (const auto& [arguments, status, message] :
       {kWrongLines[1], kWrongLines[6], kWrongLines[9]}) {
    CAPTURE(arguments);
    Outcome outcome = run_on_two_ranks(arguments);
    CAPTURE(outcome.output);
    CHECK(outcome.status == status);
    CHECK(count_of(message, outcome.output) == 1);
    CHECK(count_of("adagate: error: " + message + "\n", outcome.output) == 1);
    CHECK(outcome.seconds < 5);  // half a second on an idle machine
  }
}

TEST_CASE("command line: an error of one rank alone is told with the rank") {
  Outcome outcome = run_shell(
      "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 mpirun --oversubscribe -n 1 sleep "
      "5 : -n 1 " ADAGATE_PROGRAM " config none.yaml");
  CAPTURE(outcome.output);
  CHECK(outcome.status == 1);
  CHECK(count_of("adagate [rank 1, host ", outcome.output) == 1);
  CHECK(count_of("]: error: none.yaml: no such file\n", outcome.output) == 1);
  CHECK(outcome.seconds < 10);
}

TEST_CASE("command line: a text is tokenized, checked and inspected") {
  std::string folder = "/tmp/adagate_cli_XXXXXX";
  REQUIRE(::mkdtemp(folder.data()) != nullptr);
  std::string file = folder + "/s.tokens", sample = "data/samples/shakespeare.txt";
  Outcome made = run_on_two_ranks("tokenize " + sample + " --output " + file);
  CHECK(made.status == 0);
  // Both ranks do the work, and the same.
  CHECK(count_of(file + ": 299869 tokens in 1 documents of 299868 bytes (1.00 bytes per token)\n",
                 made.output) == 2);
  Outcome sound = run("tokenize --check " + file);
  CHECK(sound.status == 0);
  CHECK(sound.output == file + ": sound, 299869 tokens in 1 documents, of tokenizer byte\n");
  Outcome shown = run("inspect " + file + " --tokenizer byte");
  CHECK(shown.status == 0);
  CHECK(shown.output.find("First Citizen:\nBefore we proceed") != std::string::npos);
  Outcome none = run("tokenize none.txt --output " + folder + "/n.tokens");
  CHECK(none.status == 1);
  CHECK(count_of("none.txt", none.output) == 1);
  CHECK(run("tokenize " + sample).output ==
        "adagate: error: --output FILE is missing (see adagate tokenize --help)\n");
  CHECK(run("inspect " + folder + "/nothing").output ==
        "adagate: error: " + folder + "/nothing: no such file or directory\n");
  run_shell("truncate -s -100 " + file);
  Outcome cut = run("inspect " + file);
  CHECK(cut.status == 1);
  CHECK(cut.output.find("adagate: error: ") == 0);
  CHECK(cut.output.find(file) != std::string::npos);
  run_shell("rm -r " + folder);
}

TEST_CASE("command line: tokenize spares what is no token file to replace") {
  std::string folder = "/tmp/adagate_cli_XXXXXX";
  REQUIRE(::mkdtemp(folder.data()) != nullptr);
  auto in_folder = [&](const std::string& command) {
    return run_shell("cd " + folder + " && " + command);
  };
  std::string tokenize = ADAGATE_PROGRAM " tokenize ";
  in_folder("printf 'some text' > text; mkdir dir; mkfifo pipe; ln -s real link; : > real");
  struct Case {
    std::string arguments, message;
  };
  for (const auto& [arguments, message] : std::vector<Case>{
           {"text --output text",
            "--output text: exists and is no token file; name another one, or move it away"},
           {"text --output ./dir/../text",
            "--output ./dir/../text: exists and is no token file; name another one, or move it "
            "away"},
           {"text --output dir", "token file dir: is a directory; name a file in it"},
           {"text --output pipe", "token file pipe: is a pipe or a device; name a file"},
           {"dir --output t", "text file dir: is a folder; name its files"},
       }) {
    CAPTURE(arguments);
    Outcome outcome = in_folder(tokenize + arguments);
    CHECK(outcome.status == 1);
    CHECK(outcome.output == "adagate: error: " + message + "\n");
  }
  CHECK(in_folder("cat text; ls").output == "some textdir\nlink\npipe\nreal\ntext\n");
  CHECK(in_folder("cat text | " + tokenize + "- --output link").output ==
        "adagate: error: --output link: is a symbolic link; name the file itself\n");
  // From standard input, over an empty file; and what it made is no text.
  CHECK(in_folder("cat text | " + tokenize + "- --output real").status == 0);
  CHECK(in_folder("test -L link && " + tokenize + "--check real").output ==
        "real: sound, 10 tokens in 1 documents, of tokenizer byte\n");
  CHECK(in_folder(tokenize + "real --output t").output ==
        "adagate: error: text file real: is a token file already\n");
  run_shell("rm -r " + folder);
}

TEST_CASE("command line: inspect says what a file is, and one bad file hides no other") {
  std::string folder = "/tmp/adagate_cli_XXXXXX";
  REQUIRE(::mkdtemp(folder.data()) != nullptr);
  auto inspect = [&](const std::string& name) {
    return run_shell("cd " + folder + " && " ADAGATE_PROGRAM " inspect " + name);
  };
  run_shell("cd " + folder + R"( && mkdir model &&
    printf '\104\0\0\0\0\0\0\0' > model/a.safetensors &&
    printf '%s        123456789012' >> model/a.safetensors \
      '{"half":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]}}' &&
    printf '%s\n' 'version https://git-lfs.github.com/spec/v1' 'oid sha256:1' 'size 2' \
      > model/b.safetensors &&
    printf '%s%s' '{"metadata":{"total_size":24},' \
      '"weight_map":{"half":"a.safetensors","x":"c.safetensors"}}' \
      > model/model.safetensors.index.json &&
    echo '{"model_type":"gpt2","vocab_size":50257}' > model/config.json &&
    echo 'some text' > text; gzip -k text; printf '\211PNG\r\n\032\n' > image)");
  Outcome all = inspect("model");
  CAPTURE(all.output);
  CHECK(all.status == 1);
  CHECK(count_of("half", all.output) == 1);
  CHECK(count_of("F16     [2, 3]", all.output) == 1);
  CHECK(count_of("model/b.safetensors: is a Git LFS pointer, not the file itself", all.output) ==
        1);
  CHECK(count_of("index of a model in 2 shards", all.output) == 1);
  CHECK(count_of("1 tensor, MISSING beside the index", all.output) == 1);
  CHECK(count_of("2 tensors, 24 bytes, 1 shard missing", all.output) == 1);
  CHECK(count_of("adagate: error: model: of its tensor files 1 can't be read", all.output) == 1);
  CHECK(inspect("model/b.safetensors").output ==
        "adagate: error: model/b.safetensors: is a Git LFS pointer, not the file itself; fetch the "
        "file itself with 'git lfs pull'\n");
  CHECK(inspect("model/config.json").output.find("a model's configuration (Hugging Face)") !=
        std::string::npos);
  CHECK(inspect("text").output.find("text: text in UTF-8\n  bytes  10\n") == 0);
  CHECK(inspect("text.gz").output.find("text.gz: a gzip file\n") == 0);
  Outcome image = inspect("image");
  CHECK(image.status == 1);
  CHECK(image.output ==
        "adagate: error: image: is no token file, tensor file, tokenizer or "
        "checkpoint; it is a PNG image\n");
  run_shell("rm -r " + folder);
}

TEST_CASE("command line: config prints what it reads again") {
  Outcome outcome = run("config configs/quickstart.yaml --set train.batch=32");
  CHECK(outcome.status == 0);
  CHECK(outcome.output.find("  batch: 32  # samples per step") != std::string::npos);
  Outcome full = run("config 3>&1 >/dev/full 2>&3 3>&-");
  CHECK(full.status == 1);
  CHECK(full.output ==
        "adagate: error: cannot write to standard output: No space left on device\n");
}
