// The subcommands of `adagate`: one file each. An add_*_command() declares the options and, when
// the command line names its command, sets Invocation::run to what main then calls.
#pragma once

#include <CLI/App.hpp>
#include <functional>
#include <string>

namespace adagate {

struct Invocation {
  std::function<int()> run;  // returns the exit status; throws Error
  bool on_ranks = false;     // all ranks start MPI
};

void add_train_command(CLI::App& program, Invocation& invocation);
void add_evaluate_command(CLI::App& program, Invocation& invocation);
void add_generate_command(CLI::App& program, Invocation& invocation);
void add_tokenize_command(CLI::App& program, Invocation& invocation);
void add_inspect_command(CLI::App& program, Invocation& invocation);
void add_config_command(CLI::App& program, Invocation& invocation);
void add_bench_command(CLI::App& program, Invocation& invocation);
void add_help_command(CLI::App& program, Invocation& invocation);
void add_completion_command(CLI::App& program, Invocation& invocation);

using AddCommand = void (*)(CLI::App&, Invocation&);
inline constexpr AddCommand kCommands[] = {
    add_train_command,    add_evaluate_command, add_generate_command,
    add_tokenize_command, add_inspect_command,  add_config_command,
    add_bench_command,    add_help_command,     add_completion_command};

// Writes to standard output at once. Throws Error if that fails (a full disk, a closed pipe).
void print_output(const std::string& text);

}  // namespace adagate
