// The commands and options that the program has, for whatever shows them: help, manual page,
// completion.
#pragma once

#include <CLI/App.hpp>
#include <string>
#include <vector>

namespace adagate {

// Of the program itself, or of one command; in the order in which they were added.
std::vector<const CLI::App*> commands_of(const CLI::App& program);
std::vector<const CLI::Option*> positionals_of(const CLI::App& command);
std::vector<const CLI::Option*> options_of(const CLI::App& command);  // with --help

// The command called `name`. Throws Error with exit code 2 and the nearest name if there is none.
const CLI::App& command_named(const CLI::App& program, const std::string& name);

// "-h", "--help".
std::vector<std::string> names_of(const CLI::Option& option);
// "N", "DIR", "a|b"; "FILE..." for several; empty for a flag.
std::string value_of(const CLI::Option& option);
// The words that a value may be, where it is one of several.
std::vector<std::string> choices_of(const CLI::Option& option);
// "[OPTIONS] FILE...".
std::string arguments_of(const CLI::App& command);
// What the option does and its default: "Most tokens to add [100]".
std::string description_of(const CLI::Option& option);

}  // namespace adagate
