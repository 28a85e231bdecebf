// Options of a command. An option is read as a key of a configuration is: the same words, bounds
// and messages, and paths with ~ and ${VARIABLE}.
//
//   add_value(command, "--tokens", options.tokens, "Most tokens to add", between(1, 1e9));
//   add_value(command, "--data", options.data, "Token file or text file", a_path());
//
// A wrong value ends the program: "--tokens: must be between 1 and 1000000000, got 0".
#pragma once

#include <CLI/App.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "core/base/fields.h"

namespace adagate {

// One value, whose default the help shows unless it is empty; given twice, it is refused. A text
// must not be empty where it is a path. The help calls the value after its type, N, X, PATH or the
// words to choose from; CLI::Option::type_name() gives another name.
CLI::Option* add_value(CLI::App& command, const std::string& name, int64_t& value,
                       const std::string& help, const Constraint& constraint = {});
CLI::Option* add_value(CLI::App& command, const std::string& name, double& value,
                       const std::string& help, const Constraint& constraint = {});
CLI::Option* add_value(CLI::App& command, const std::string& name, std::string& value,
                       const std::string& help, const Constraint& constraint = {});

// Any number of values.
CLI::Option* add_values(CLI::App& command, const std::string& name,
                        std::vector<std::string>& values, const std::string& help,
                        const Constraint& constraint = {});

// For ->check() of a path that is expanded later.
CLI::Validator not_empty();

// RUN, which may also be written --checkpoint DIR: the directory of a run or of a checkpoint.
void add_run(CLI::App& command, std::string& run);

// --device auto|cpu|cuda.
void add_device(CLI::App& command, std::string& device);

// --threads N.
void add_threads(CLI::App& command, int64_t& threads);

}  // namespace adagate
