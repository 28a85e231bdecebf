#include "apps/config_options.h"

#include <fmt/ranges.h>

#include "train/config/yaml_loader.h"

namespace adagate {

void add_config_options(CLI::App& command, ConfigOptions& options, bool file_required) {
  auto* files = command.add_option("FILE", options.files,
                                   "Configuration (YAML); of several, later ones override");
  if (file_required) files->required();
  command
      .add_option("--set", options.assignments,
                  "Override one key, e.g. --set train.batch=16; may be repeated")
      ->allow_extra_args(false)
      ->type_name("KEY=VALUE");
  command.add_option("--output", options.output, "Directory of the run; short for --set output=")
      ->type_name("DIR");
}

RunConfig load_run_config(const ConfigOptions& options) {
  ConfigTree tree;
  for (const std::string& file : options.files) tree.add_file(file);
  for (const std::string& assignment : options.assignments) tree.add_override(assignment);
  RunConfig config = read_config<RunConfig>(tree);
  if (!options.output.empty()) config.output = options.output;
  return config;
}

void check_consistent(const RunConfig& config, int ranks) {
  auto problems = validate(config, ranks);
  check(problems.empty(), "{}", fmt::join(problems, "\n"));
}

}  // namespace adagate
