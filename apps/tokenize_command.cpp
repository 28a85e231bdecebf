// adagate tokenize: text files to a token file.
#include <algorithm>
#include <filesystem>
#include <fmt/format.h>
#include <memory>

#include "apps/commands.h"
#include "apps/exit_status.h"
#include "apps/launch.h"
#include "apps/options.h"
#include "core/base/error.h"
#include "data/token_file.h"
#include "data/tokenize_files.h"
#include "train/signals.h"

namespace adagate {
namespace {

struct Options {
  std::string tokenizer = "byte";
  std::string output;
  std::vector<std::string> inputs;
  std::string documents = "file";
  bool check = false;
  bool any_content = false;
};

// A token file reads back as what the tokenizer makes of the text; says what is in it.
int check_file(const Options& options, const Tokenizer& tokenizer) {
  for (const std::string& path : options.inputs) {
    TokenFile file(path);
    file.view().check_tokenizer(tokenizer);
    file.view().verify();
    print_output(fmt::format("{}: sound, {} tokens in {} documents, of tokenizer {}\n", path,
                             file.view().size(), file.view().documents(),
                             file.view().tokenizer_name()));
  }
  return 0;
}

// Another run of this command may replace a token file; what is anything else stays.
void check_output_file(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  check(!fs::is_symlink(fs::symlink_status(path, error)),
        "--output {}: is a symbolic link; name the file itself", path);
  bool has_content = fs::is_regular_file(path, error) && fs::file_size(path, error) > 0;
  check(!has_content || is_token_file(path),
        "--output {}: exists and is no token file; name another one, or move it away", path);
}

int run(const Options& options) {
  auto tokenizer = named("--tokenizer", [&] { return load_tokenizer(options.tokenizer); });
  if (options.check) return check_file(options, *tokenizer);
  if (options.output.empty())
    throw Error("--output FILE is missing (see adagate tokenize --help)", kUsageError);
  check_output_file(options.output);
  TokenizeOptions how;
  // Ranks that were given one output by mistake must not write over each other's.
  how.replace = launch_from_environment().ranks == 1;
  how.documents = parse_document_unit(options.documents);
  how.any_content = options.any_content;
  std::vector<std::string> inputs = options.inputs;
  std::replace(inputs.begin(), inputs.end(), std::string("-"), std::string("/dev/stdin"));
  install_stop_signals();
  auto report = [](const TokenizeProgress&) {
    check_not_stopped("interrupted; nothing was written");
  };
  TokenizeProgress done = tokenize_files(inputs, *tokenizer, options.output, how, report);
  print_output(fmt::format("{}: {} tokens in {} documents of {} bytes ({:.2f} bytes per token)\n",
                           options.output, done.tokens, done.documents, done.bytes,
                           static_cast<double>(done.bytes) / static_cast<double>(done.tokens)));
  return 0;
}

}  // namespace

void add_tokenize_command(CLI::App& program, Invocation& invocation) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      program.add_subcommand("tokenize", "Turn text files into a token file for training");
  add_values(*command, "INPUT", options->inputs,
             "Text files, also in gzip, zstd or UTF-16; - for standard input (with --check, token "
             "files)",
             a_path())
      ->required();
  add_value(*command, "--tokenizer", options->tokenizer,
            "byte, or the path of a GPT-2 byte-level BPE: a tokenizer.json, or a folder with "
            "tokenizer.json, encoder.json + vocab.bpe, or vocab.json + merges.txt",
            a_path());
  add_value(*command, "--output", options->output, "Token file to write", a_path())
      ->type_name("FILE");
  add_value(*command, "--documents", options->documents,
            "What is a document of its own: each file, each paragraph (blank lines between), or "
            "each line",
            one_of({"file", "paragraph", "line"}));
  command->add_flag(
      "--binary", options->any_content,
      "Take the inputs byte for byte, whatever they hold: unpack and convert nothing");
  command->add_flag("--check", options->check,
                    "Write nothing; verify that token files are whole and of this tokenizer");
  command->footer(
      R"(Under mpirun or srun every rank works by itself: give each its own --output.
Examples:
  adagate tokenize data/samples/shakespeare.txt --output shakespeare.tokens
  adagate tokenize data/samples/shakespeare.txt --documents paragraph --output samples.tokens
  cat data/samples/*.txt | adagate tokenize - --output all.tokens
  adagate tokenize --check shakespeare.tokens samples.tokens
  mpirun -n 2 sh -c 'adagate tokenize data/samples/shakespeare.txt \
    --output part$OMPI_COMM_WORLD_RANK.tokens')");
  command->callback(
      [options, &invocation] { invocation.run = [options] { return run(*options); }; });
}

}  // namespace adagate
