#include "apps/config_options.h"

#include <filesystem>
#include <fmt/ranges.h>

#include "apps/options.h"
#include "core/base/log.h"
#include "train/config/yaml_loader.h"
#include "train/kept_configs.h"

namespace adagate {

void add_config_options(CLI::App& command, ConfigOptions& options, bool file_required) {
  auto* files = add_values(command, "FILE", options.files,
                           "Configuration (YAML); of several, later ones override", a_path());
  if (file_required) files->required();
  command
      .add_option("--set", options.assignments,
                  "Override one key, e.g. --set train.batch=16; may be repeated")
      ->allow_extra_args(false)
      ->type_name("KEY=VALUE");
  // A path that the configuration expands.
  add_value(command, "--output", options.output, "Directory of the run; short for --set output=")
      ->check(not_empty())
      ->type_name("DIR");
}

namespace {

// The configuration that a run keeps means that run, wherever it has been moved to.
void follow_moved_run(LoadedConfig& loaded) {
  namespace fs = std::filesystem;
  std::string file = loaded.tree.file_of("output");
  fs::path run = file.empty() ? fs::path() : run_of_config(file);
  std::error_code error;
  if (run.empty() || fs::equivalent(run, loaded.config.output, error)) return;
  log::info("output is {}, where {} lies now, not {}", run.string(), file, loaded.config.output);
  loaded.config.output = run.string();
}

}  // namespace

void load_run_config(const ConfigOptions& options, LoadedConfig& loaded) {
  ConfigTree& tree = loaded.tree;
  for (const std::string& file : options.files) {
    check(file.find('=') == std::string::npos || std::filesystem::exists(file),
          "{}: no such file; is --set missing before it?", file);
    tree.add_file(file);
  }
  for (const std::string& assignment : options.assignments) tree.add_override(assignment);
  if (!options.output.empty()) tree.add_text_value("output", options.output, "--output");
  if (!options.resume.empty()) tree.add_text_value("checkpoint.resume", options.resume, "--resume");
  read_config(tree, loaded.config);
  follow_moved_run(loaded);
}

void check_consistent(const LoadedConfig& loaded, int ranks) {
  auto problems = validate(loaded.config, ranks);
  for (std::string& problem : problems) problem = loaded.tree.with_places(problem);
  check(problems.empty(), "{}", fmt::join(problems, "\n"));
}

}  // namespace adagate
