// The options by which a command is given a RunConfig.
#pragma once

#include <CLI/App.hpp>
#include <string>
#include <vector>

#include "train/config/run_config.h"

namespace adagate {

struct ConfigOptions {
  std::vector<std::string> files;
  std::vector<std::string> assignments;  // of --set
  std::string output;                    // of --output; empty: not given
};

// FILE..., --set and --output.
void add_config_options(CLI::App& command, ConfigOptions& options, bool file_required);

// Reads files, then --set, then --output. Throws Error with every wrong key and value.
RunConfig load_run_config(const ConfigOptions& options);

// Throws one Error with all that contradicts itself, if anything does.
void check_consistent(const RunConfig& config, int ranks);

}  // namespace adagate
