// Scripts by which a shell completes the program's command line.
#pragma once

#include <CLI/App.hpp>
#include <string>

namespace adagate {

// For bash, zsh or fish: commands, options, words to choose from, keys behind --set, and paths
// where the value is one.
std::string completion_script(const CLI::App& program, const std::string& shell);

}  // namespace adagate
