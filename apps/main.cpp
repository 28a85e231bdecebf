// adagate: command line to subcommand, and every failure to one message.
#include <CLI/CLI.hpp>
#include <csignal>
#include <cstring>
#include <memory>
#include <new>
#include <sstream>
#include <unistd.h>

#include "apps/command_tree.h"
#include "apps/commands.h"
#include "apps/exit_status.h"
#include "apps/help.h"
#include "apps/launch.h"
#include "apps/version.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/standard_output.h"
#include "train/config/config_tree.h"

namespace adagate {
namespace {

constexpr const char* kAbout =
    "Distributed training of Mixture-of-Experts language models with adaptive gating";
constexpr const char* kExamples = R"(Examples:
  mpirun -n 2 adagate train configs/quickstart.yaml
  adagate generate runs/quickstart --prompt "First Citizen:"
  adagate help train)";

const CLI::App& chosen_command(const CLI::App& program) {
  auto chosen = program.get_subcommands();
  return chosen.empty() ? program : *chosen.front();
}

// "; did you mean '--batch'?" for the first word on the command line that nothing took.
std::string suggestion(const CLI::App& program) {
  auto left = program.remaining(true);
  if (left.empty()) return "";
  std::vector<std::string> candidates;
  const CLI::App& command = chosen_command(program);
  for (const CLI::Option* option : command.get_options())
    for (const std::string& name : option->get_lnames()) candidates.push_back("--" + name);
  for (const CLI::App* sub : command.get_subcommands([](const CLI::App*) { return true; }))
    candidates.push_back(sub->get_name());
  std::string word = left.front().substr(0, left.front().find('='));
  std::string nearest = nearest_word(word, candidates);
  return nearest.empty() ? "" : fmt::format("; did you mean '{}'?", nearest);
}

bool is_a(const CLI::ParseError& error, CLI::ExitCodes code) {
  return error.get_exit_code() == static_cast<int>(code);
}

// What CLI11 says of how often an option is given, in this program's words.
std::string count_error(const CLI::ParseError& error) {
  std::string message = error.what();
  std::string name = message.substr(0, message.find(':'));
  constexpr std::string_view kTwice = ": At Most 1 required but received ";
  constexpr std::string_view kNone = ": 1 required ", kMissing = " missing";
  constexpr std::string_view kExcludes = " excludes ";
  if (is_a(error, CLI::ExitCodes::ExcludesError)) {
    size_t at = message.find(kExcludes);
    return fmt::format("{} and {} cannot be given together", message.substr(0, at),
                       message.substr(at + kExcludes.size()));
  }
  if (!is_a(error, CLI::ExitCodes::ArgumentMismatch)) return message;
  std::string_view rest = std::string_view(message).substr(name.size());
  if (rest.starts_with(kTwice))
    return fmt::format("{} is given {} times; give it once", name, rest.substr(kTwice.size()));
  if (rest.starts_with(kNone) && rest.ends_with(kMissing)) {
    rest.remove_prefix(kNone.size());
    rest.remove_suffix(kMissing.size());
    return fmt::format("{0} needs a value: {0} {1}", name, rest);
  }
  return message;
}

// For "--name=", which CLI11 would give the next word for a value.
void refuse_empty_values(const CLI::App& program, int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    std::string word = argv[i];
    if (word == "--") return;
    if (!word.starts_with("--") || word.find('=') != word.size() - 1) continue;
    word.pop_back();
    for (const CLI::App* command : commands_of(program))
      if (command->get_option_no_throw(word))
        throw CLI::ValidationError(word, "the value is empty");
  }
}

std::string usage_error(const CLI::App& program, const CLI::ParseError& error) {
  const CLI::App& command = chosen_command(program);
  std::string help = "adagate" + (&command == &program ? "" : " " + command.get_name());
  std::string message = count_error(error);
  auto left = program.remaining(true);
  if (is_a(error, CLI::ExitCodes::ExtrasError) && !left.empty()) {
    bool option = left.front().starts_with('-');
    bool no_command = !option && &command == &program;
    message =
        fmt::format("unknown {} {}{}", option ? "option" : (no_command ? "command" : "argument"),
                    quote(left.front()), suggestion(program));
  } else if (program.get_subcommands().empty() && is_a(error, CLI::ExitCodes::RequiredError)) {
    message = "no command is given";
  }
  constexpr std::string_view kRun = "--checkpoint is required";  // CLI11's name of RUN
  if (message == kRun) message = "RUN, the directory of a run or a checkpoint, is required";
  return fmt::format("{} (see {} --help)", message, help);
}

int run(int argc, char** argv) {
  CLI::App program(kAbout, "adagate");
  program.footer(kExamples);
  program.set_version_flag("-V,--version", version_text, "Print version, compiler and libraries");
  program.set_help_flag("-h,--help", "Print this help");
  program.formatter(std::make_shared<HelpFormatter>());
  program.fallthrough(false);
  program.require_subcommand(0, 1);  // behind a command, the name of another one is an argument
  Invocation invocation;
  for (AddCommand add : kCommands) add(program, invocation);
  try {
    refuse_empty_values(program, argc, argv);
    program.parse(argc, argv);
    if (!invocation.run) throw CLI::RequiredError("A command");
  } catch (const CLI::Success& answer) {  // --help and --version
    std::ostringstream text;
    int code = program.exit(answer, text, text);
    print_output(text.str());
    return code;
  } catch (const CLI::ParseError& error) {
    throw Error(usage_error(program, error), kUsageError);
  }
  set_meets_ranks(invocation.on_ranks);
  return invocation.run();
}

}  // namespace

void print_output(const std::string& text) {
  if (!write_output(text)) {
    fail("cannot write to standard output: {}", std::strerror(output_failure()));
  }
}

}  // namespace adagate

int main(int argc, char** argv) {
  using namespace adagate;
  occupy_standard_streams();
  try {
    Launch launch = launch_from_environment();
    notice_ending_ranks();
    // A file past its limit (ulimit -f) is an error of the write, which has a message.
    std::signal(SIGXFSZ, SIG_IGN);
    log::set_rank(launch.rank, launch.ranks);
    return run(argc, argv);
  } catch (const Error& error) {
    end_with_error(error.what(), error.exit_code());
  } catch (const std::bad_alloc&) {
    end_with_error(
        "out of memory: use a smaller model, train.batch or model.context, or raise "
        "train.accumulation",
        1);
  } catch (const std::exception& error) {
    end_with_error(fmt::format("unexpected: {}", error.what()), 1);
  } catch (...) {
    end_with_error("unexpected, of unknown kind", 1);
  }
}
