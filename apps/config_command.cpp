// adagate config: what a run would be told.
#include <memory>

#include "apps/commands.h"
#include "apps/config_options.h"
#include "apps/launch.h"
#include "apps/options.h"
#include "train/config/config_writer.h"

namespace adagate {
namespace {

struct Options {
  ConfigOptions config;
  bool reference = false;
  int64_t ranks = 1;
};

int run(const Options& options) {
  std::string text;
  if (options.reference) {
    text = configuration_reference();
  } else {
    LoadedConfig loaded;
    load_run_config(options.config, loaded);
    check_consistent(loaded, static_cast<int>(options.ranks));
    text = write_yaml(loaded.config);
  }
  print_output(text);
  return 0;
}

}  // namespace

void add_config_command(CLI::App& program, Invocation& invocation) {
  auto options = std::make_shared<Options>();
  CLI::App* command = program.add_subcommand(
      "config", "Check a configuration and print it with all defaults filled in");
  add_config_options(*command, options->config, false);
  command->add_flag("--reference", options->reference,
                    "Print the page that explains every key (docs/configuration.md)");
  options->ranks = launch_from_environment().ranks;
  add_value(*command, "--ranks", options->ranks, "Check it for this number of ranks",
            between(1, 1000000));
  command->footer(R"(Under mpirun or srun every rank prints its own.
Examples:
  adagate config configs/quickstart.yaml --set moe.gate.threshold=0.2
  adagate config configs/wikitext2_top2.yaml --ranks 4
  adagate config --reference)");
  command->callback(
      [options, &invocation] { invocation.run = [options] { return run(*options); }; });
}

}  // namespace adagate
