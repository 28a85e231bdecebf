// adagate: command line to subcommand, and every failure to one message.
#include <CLI/CLI.hpp>
#include <csignal>
#include <cstring>
#include <new>
#include <sstream>
#include <unistd.h>

#include "apps/commands.h"
#include "apps/launch.h"
#include "apps/version.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/standard_output.h"
#include "parallel/short_spin.h"
#include "train/config/config_tree.h"

namespace adagate {
namespace {

constexpr const char* kAbout =
    "adagate: distributed training of Mixture-of-Experts language models with adaptive gating";
constexpr const char* kExamples = R"(Examples:
  mpirun -n 2 adagate train configs/quickstart.yaml
  adagate generate runs/quickstart --prompt "First Citizen:"
  adagate COMMAND --help)";

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

std::string usage_error(const CLI::App& program, const CLI::ParseError& error) {
  const CLI::App& command = chosen_command(program);
  std::string help = "adagate" + (&command == &program ? "" : " " + command.get_name());
  std::string message = error.what();
  auto left = program.remaining(true);
  if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::ExtrasError) && !left.empty()) {
    bool option = left.front().starts_with('-');
    bool no_command = !option && &command == &program;
    message =
        fmt::format("unknown {} {}{}", option ? "option" : (no_command ? "command" : "argument"),
                    quote(left.front()), suggestion(program));
  } else if (program.get_subcommands().empty() &&
             error.get_exit_code() == static_cast<int>(CLI::ExitCodes::RequiredError)) {
    message = "no command is given";
  }
  constexpr std::string_view kRun = "--checkpoint is required";  // CLI11's name of RUN
  if (message == kRun) message = "RUN, the directory of a run or a checkpoint, is required";
  return fmt::format("{} (see {} --help)", message, help);
}

int run(int argc, char** argv) {
  CLI::App program(kAbout, "adagate");
  program.footer(kExamples);
  program.set_version_flag("--version", version_text, "Print version, compiler and libraries");
  program.set_help_flag("-h,--help", "Print this help");
  program.get_formatter()->column_width(34);
  program.fallthrough(false);
  Invocation invocation;
  for (AddCommand add : kCommands) add(program, invocation);
  try {
    program.parse(argc, argv);
    if (!invocation.run) throw CLI::RequiredError("A command");
  } catch (const CLI::Success& answer) {  // --help and --version
    std::ostringstream text;
    int code = program.exit(answer, text, text);
    print_output(text.str());
    return code;
  } catch (const CLI::ParseError& error) {
    constexpr int kUsage = 2;
    throw Error(usage_error(program, error), kUsage);
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

#if defined(__GLIBC__) && defined(_OPENMP)
namespace {
// Runs before the libraries' constructors, unlike any constructor of the program itself.
void before_libraries(int, char**, char** environment) {
  adagate::lend_spin_count(environment);
}
[[gnu::section(".preinit_array"), gnu::used]] void (*g_before_libraries)(int, char**,
                                                                         char**) = before_libraries;
}  // namespace
#endif

int main(int argc, char** argv) {
  using namespace adagate;
  occupy_standard_streams();
  take_back_spin_count(environ);
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
