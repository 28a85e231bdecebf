// adagate help, adagate completion: the program about itself.
#include <memory>

#include "apps/command_tree.h"
#include "apps/commands.h"
#include "apps/completion.h"
#include "apps/help.h"
#include "apps/options.h"

namespace adagate {
namespace {

struct HelpOptions {
  std::string command;
  bool manual = false;
};

int print(const std::string& text) {
  print_output(text);
  return 0;
}

int help(const HelpOptions& options, const CLI::App& program) {
  if (options.manual) return print(manual_page(program));
  return print(
      help_text(options.command.empty() ? program : command_named(program, options.command)));
}

}  // namespace

void add_help_command(CLI::App& program, Invocation& invocation) {
  auto options = std::make_shared<HelpOptions>();
  CLI::App* command = program.add_subcommand("help", "Explain the program or one command");
  add_value(*command, "COMMAND", options->command, "One of the commands")->type_name("COMMAND");
  command->add_flag("--man", options->manual, "Print the manual page, adagate.1");
  command->footer(R"(Examples:
  adagate help train
  adagate help --man | man -l -)");
  command->callback([options, &program, &invocation] {
    invocation.run = [options, &program] { return help(*options, program); };
  });
}

void add_completion_command(CLI::App& program, Invocation& invocation) {
  auto shell = std::make_shared<std::string>();
  CLI::App* command = program.add_subcommand(
      "completion", "Print a script that completes commands, options, keys and paths in a shell");
  add_value(*command, "SHELL", *shell, "bash, zsh or fish", one_of({"bash", "zsh", "fish"}))
      ->required();
  command->footer(R"(Examples:
  source <(adagate completion bash)
  adagate completion fish > adagate.fish)");
  command->callback([shell, &program, &invocation] {
    invocation.run = [shell, &program] { return print(completion_script(program, *shell)); };
  });
}

}  // namespace adagate
