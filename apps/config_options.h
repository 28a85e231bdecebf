// The options by which a command is given a RunConfig.
#pragma once

#include <CLI/App.hpp>
#include <string>
#include <vector>

#include "train/config/config_tree.h"
#include "train/config/run_config.h"

namespace adagate {

struct ConfigOptions {
  std::vector<std::string> files;
  std::vector<std::string> assignments;  // of --set
  std::string output;                    // of --output; empty: not given
  std::string resume;                    // of --resume; empty: not given
};

// FILE..., --set and --output.
void add_config_options(CLI::App& command, ConfigOptions& options, bool file_required);

struct LoadedConfig {
  RunConfig config;
  ConfigTree tree;  // where each value was written
};

// Reads files, then --set, then --output. Throws Error with every wrong key and value; `loaded`
// then holds what came before it.
void load_run_config(const ConfigOptions& options, LoadedConfig& loaded);

// Throws one Error with all that contradicts itself, if anything does, and where it was written.
void check_consistent(const LoadedConfig& loaded, int ranks);

}  // namespace adagate
