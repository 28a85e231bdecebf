// What the program says of itself: help, its examples, manual page, completions.
#include <filesystem>
#include <sstream>

#include "tests/apps/program.h"
#include "tests/support/temp_folder.h"

using namespace adagate;
using namespace adagate::program;
using Catch::Contains;

namespace {

const std::vector<std::string> kCommands = {"train",    "evaluate", "generate",
                                            "tokenize", "inspect",  "config",
                                            "bench",    "help",     "completion"};

std::vector<std::string> lines_of(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

// The lines between "Examples:" and the next line that isn't indented.
std::vector<std::string> examples_of(const std::string& help) {
  std::vector<std::string> examples;
  bool inside = false;
  for (const std::string& line : lines_of(help)) {
    bool goes_on = inside && !examples.empty() && examples.back().ends_with("\\");
    if (goes_on)
      examples.back() += "\n" + line;
    else if (inside && line.starts_with("  "))
      examples.push_back(line.substr(2));
    inside = line == "Examples:" || (inside && line.starts_with("  "));
  }
  return examples;
}

}  // namespace

TEST_CASE("help: of the program and of each command") {
  Outcome all = run("--help");
  CHECK(all.status == 0);
  CHECK(run("help").output == all.output);
  CHECK(run("-h").output == all.output);
  for (const std::string& name : kCommands) {
    CAPTURE(name);
    CHECK_THAT(all.output, Contains("\n  " + name + " "));
    Outcome help = run(name + " --help");
    CHECK(help.status == 0);
    CHECK(run("help " + name).output == help.output);
    CHECK_THAT(help.output, Contains("\n\nUsage: adagate " + name + " [OPTIONS]"));
    CHECK_FALSE(examples_of(help.output).empty());
    for (const char* odd : {"REQUIRED", " INT", "FLOAT", "UINT", " in [", "TEXT:"})
      CHECK(count_of(odd, help.output) == 0);
    for (const std::string& line : lines_of(help.output.substr(0, help.output.find("Examples:")))) {
      CAPTURE(line);
      CHECK(line.size() <= 80);
    }
  }
  Outcome generate = run("help generate");
  CHECK_THAT(generate.output, Contains("\nUsage: adagate generate [OPTIONS] RUN\n"));
  CHECK_THAT(generate.output, Contains("\n  --checkpoint DIR      The same as RUN\n"));
  CHECK_THAT(generate.output, Contains("\n  --tokens N            Most tokens to add [100]\n"));
  CHECK_THAT(run("help tokenize").output,
             Contains("\n  --documents file|paragraph|line\n                        What is"));
  Outcome wrong = run("help trian");
  CHECK(wrong.status == 2);
  CHECK(wrong.output ==
        "adagate: error: unknown command 'trian'; did you mean 'train'? (see adagate --help)\n");
  CHECK(run("--version").output.find("adagate 0.") == 0);
  CHECK(run("-V").output == run("--version").output);
  CHECK(count_of("Usage:", run_on_two_ranks("--help").output) == 2);
  CHECK(count_of("Usage:", run_on_two_ranks("help").output) == 2);
}

TEST_CASE("help: every example runs where the quickstart has run") {
  TempFolder folder;
  // What the quickstart leaves, of a model that is made in no time.
  std::string small =
      " --set model.width=8 --set model.layers=2 --set model.heads=1 --set model.context=8 --set "
      "train.batch=4 --set train.evaluate_samples=4 --set parallel.threads=1";
  std::string prepare = "set -e; cd " + folder.path("") +
                        "; mkdir bin; ln -s " ADAGATE_PROGRAM " bin/adagate; ln -s " +
                        source_path("configs") + " configs; ln -s " + source_path("data") +
                        " data; ";
  std::string environment =
      "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "
      "OMPI_MCA_rmaps_base_oversubscribe=1 PATH=" +
      folder.path("bin") + ":$PATH; cd " + folder.path("") + "; ";
  Outcome made = run_shell(prepare + environment +
                           "mpirun -n 2 adagate train configs/quickstart.yaml" + small);
  CAPTURE(made.output);
  REQUIRE(made.status == 0);
  int tried = 0;
  std::vector<std::string> pages = kCommands;
  pages.insert(pages.begin(), "");
  for (const std::string& name : pages) {
    for (std::string line : examples_of(run(name + " --help").output)) {
      if (line.find("adagate train ") != line.npos) line += small;
      if (line.find("adagate bench") != line.npos)
        line +=
            " --seconds 0.001 --rounds 1 --tokens 64 --width 32 --hidden 32 --heads 1 "
            "--vocabulary 64 --context 16";
      if (line.find("man -l") != line.npos) line = line.substr(0, line.find('|'));
      CAPTURE(line);
      folder.write("example.sh", line + "\n");
      Outcome outcome = run_shell(environment + "bash -e -o pipefail example.sh </dev/null");
      CAPTURE(outcome.output);
      CHECK(outcome.status == 0);
      ++tried;
    }
  }
  CHECK(tried >= 20);
}

TEST_CASE("help: the manual page has every command and option") {
  std::string page = run("help --man").output;
  CHECK(page.starts_with(".TH ADAGATE 1\n"));
  for (const std::string& name : kCommands) CHECK_THAT(page, Contains("\n.SS adagate " + name));
  for (const char* part : {"\\fB\\-\\-tokens N\\fR\nMost tokens to add [100]\n",
                           ".SH EXIT STATUS\n", "\\fB130\\fR\n", "\n.SH COMMANDS\n"})
    CHECK_THAT(page, Contains(part));
  if (run_shell("command -v man groff").status == 0) {
    Outcome shown = run_shell(ADAGATE_PROGRAM " help --man | groff -man -Tutf8 -ww -z");
    CHECK(shown.output.empty());
  }
}

TEST_CASE("help: completions of commands, options, words and keys") {
  TempFolder folder;
  folder.write("complete.sh", R"(source <("$1" completion bash)
COMP_WORDS=("${@:2}") COMP_CWORD=$(($# - 2))
compopt() { :; }
_adagate
printf '%s\n' "${COMPREPLY[@]}")");
  auto complete = [&](const std::string& words) {
    return run_shell("bash " + folder.path("complete.sh") + " " ADAGATE_PROGRAM " adagate " + words)
        .output;
  };
  CHECK(complete("tr") == "train\n");
  CHECK(complete("generate --temp") == "--temperature\n");
  CHECK(complete("tokenize --documents p") == "paragraph\n");
  CHECK(complete("tokenize --documents = l") == "line\n");
  CHECK(complete("train --set moe.gate.thr") == "moe.gate.threshold=\n");
  CHECK(complete("help eva") == "evaluate\n");
  CHECK(complete("completion z") == "zsh\n");
  CHECK(complete("train configs/quick") == "configs/quickstart.yaml\n");
  CHECK_THAT(complete("train --resume a"), Contains("auto\n"));
  for (const char* shell : {"bash", "zsh", "fish"}) {
    CAPTURE(shell);
    Outcome script = run(std::string("completion ") + shell);
    CHECK(script.status == 0);
    CHECK_THAT(script.output, Contains("temperature"));
    CHECK_THAT(script.output, Contains("moe.gate.threshold="));
    if (run_shell(std::string("command -v ") + shell).status != 0) continue;
    Outcome parsed =
        run_shell(std::string(ADAGATE_PROGRAM " completion ") + shell + " | " + shell + " -n");
    CHECK(parsed.output.empty());
    CHECK(parsed.status == 0);
  }
}
