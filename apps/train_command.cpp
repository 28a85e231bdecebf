// adagate train: a configuration to a trained model.
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fmt/format.h>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/commands.h"
#include "apps/config_options.h"
#include "apps/launch.h"
#include "apps/options.h"
#include "apps/rank_options.h"
#include "apps/started_alike.h"
#include "core/base/log.h"
#include "core/base/standard_output.h"
#include "parallel/agree.h"
#include "parallel/mpi_session.h"
#include "parallel/placement.h"
#include "parallel/rank_names.h"
#include "train/config/config_changes.h"
#include "train/config/config_writer.h"
#include "train/json_text.h"
#include "train/metrics_writer.h"
#include "train/plan_report.h"
#include "train/progress.h"
#include "train/rank_facts.h"
#include "train/run_plan.h"
#include "train/signals.h"
#include "train/trainer.h"

namespace adagate {
namespace {

struct Options {
  ConfigOptions config;
  bool dry_run = false;
  bool json = false;
  bool overwrite = false;
  std::vector<std::string> allowed_changes;
};

// [ranks] threads of each. Collective.
std::vector<int64_t> threads_of_ranks(Communicator& world, const Placement& placement) {
  std::vector<int64_t> all(static_cast<size_t>(world.size()));
  int64_t own = placement.threads;
  world.all_gather(&own, all.data(), 1, DType::i64);
  return all;
}

// "2 per rank", or "1 to 4 per rank; 1 on rank 3 (host b)". Collective.
std::string threads_text(const std::vector<int64_t>& all, Communicator& world,
                         const Placement& placement) {
  auto [least, most] = std::minmax_element(all.begin(), all.end());
  if (*least == *most) return describe_threads(placement);
  std::vector<int> fewest;
  for (int r = 0; r < world.size(); ++r)
    if (all[static_cast<size_t>(r)] == *least) fewest.push_back(r);
  return fmt::format("{} to {} per rank; {} on {}", *least, *most, *least,
                     RankNames(world).of(fewest));
}

int dry_run(const LoadedConfig& loaded, const Options& options, Communicator& world,
            const Placement& placement) {
  const RunConfig& config = loaded.config;
  same_on_all_ranks(world, config_facts(config), "start all ranks with the same configuration");
  std::unique_ptr<Tokenizer> tokenizer;
  on_all_ranks(world, [&] {
    tokenizer = named("data.tokenizer", [&] { return load_tokenizer(config.data.tokenizer); });
  });
  same_on_all_ranks(world, {file_fact("data.tokenizer", config.data.tokenizer, tokenizer->hash())},
                    "give all ranks the same tokenizer");
  std::vector<int64_t> threads = threads_of_ranks(world, placement);
  std::string described = threads_text(threads, world, placement);
  RunPlan plan;
  // Each looks at the memory of its own host.
  on_all_ranks(world, [&] {
    plan = plan_run(config, {.ranks = world.size(),
                             .local_ranks = read_launch_environment().local_size,
                             .config_yaml = write_yaml(config),
                             .config_files = loaded.tree.files(),
                             .overwrite = options.overwrite});
  });
  if (world.rank() > 0) return 0;
  if (options.json) {
    nlohmann::ordered_json json = json_of(plan);
    json["threads"] = threads;
    json["configuration"] = write_yaml(plan.config);
    print_output(json_text(json));
    return 0;
  }
  print_output(
      fmt::format("{}\n{}threads      {}\n", write_yaml(plan.config), text_of(plan), described));
  return 0;
}

constexpr std::string_view kInterruptNotice =
    "\nadagate: interrupted: ends in good order and saves what is trained; Ctrl-C again ends at "
    "once\n";

std::string lost_output(int failure) {
  return fmt::format("cannot write to standard output: {}", std::strerror(failure));
}

// What a run prints is worth less than its work: whose reader has gone saves and ends, and where a
// terminal or a disk fails it goes on.
class OutputWatch final : public TrainingObserver {
 public:
  void on_step(const StepReport&) override {
    int failure = output_failure();
    if (failure == 0 || told_) return;
    told_ = true;
    if (failure == EPIPE) return;
    log::warn("{}; the run goes on, its figures are in metrics.jsonl", lost_output(failure));
  }

 private:
  bool told_ = false;
};

void check_not_left_alone(const Trainer& trainer, TrainingEnd end) {
  // A signal may have come to another rank.
  bool alone =
      end == TrainingEnd::stopped_by_signal && stop_signal() == 0 && output_failure() == EPIPE;
  check(!alone,
        "{}; step {} is saved in {}: go on with --resume=auto, and to see nothing, > /dev/null",
        lost_output(output_failure()), trainer.state().step,
        trainer.checkpoint_directory().string());
}

int train(const LoadedConfig& loaded, const Options& options, MpiSession& session,
          const Placement& placement) {
  const RunConfig& config = loaded.config;
  Launch launch = launch_from_environment();
  if (options.dry_run) return dry_run(loaded, options, *session.world(), placement);
  std::string yaml = write_yaml(config);
  Trainer trainer(config,
                  {.config_yaml = yaml,
                   .overwrite = options.overwrite,
                   .config_files = loaded.tree.files(),
                   .allowed_changes = options.allowed_changes},
                  session.world());
  Communicator& world = *session.world();
  std::string threads_of_all = threads_text(threads_of_ranks(world, placement), world, placement);
  // Only rank 0 tells; the others work in silence.
  std::unique_ptr<ProgressPrinter> progress;
  std::unique_ptr<MetricsWriter> metrics;
  OutputWatch output_watch;
  if (launch.rank == 0) {
    write_output(fmt::format("{}threads      {}\n\n", plan_report(trainer.config(), launch.ranks),
                             threads_of_all));
    auto file = std::filesystem::path(config.output) / "metrics.jsonl";
    progress = std::make_unique<ProgressPrinter>(config.train.log_every, file);
    metrics = std::make_unique<MetricsWriter>(file, trainer.continued_step());
    trainer.observe(*metrics);
    trainer.observe(*progress);
    trainer.observe(output_watch);
  }
  TrainingEnd end = trainer.run();
  if (launch.rank == 0) check_not_left_alone(trainer, end);
  return 0;
}

// --overwrite means a new run where only a file says that this one is to go on; a checkpoint to go
// back to, and what the command line says, stay.
void start_anew(RunConfig& config, const ConfigOptions& given) {
  bool by_file =
      given.resume.empty() && std::none_of(given.assignments.begin(), given.assignments.end(),
                                           [](const std::string& assignment) {
                                             return assignment.starts_with("checkpoint.resume=");
                                           });
  if (by_file && config.checkpoint.resume == "auto") config.checkpoint.resume = "none";
}

int run(const Options& options) {
  // SIGTERM or SIGUSR1 before the first step ends the run after it.
  bool speaks = launch_from_environment().rank == 0;
  install_stop_signals(speaks ? kInterruptNotice : "");
  std::signal(SIGPIPE, SIG_IGN);  // writing fails instead
  int failure = foreseen_output_failure();
  check(failure == 0 || !speaks, "{}; to see nothing, > /dev/null", lost_output(failure));
  AllowedChanges{options.allowed_changes};  // a misspelt one ends the program here
  LoadedConfig loaded;
  // A configuration that is wrong on one host only ends all ranks with a message that names it: the
  // ranks meet before they fail.
  std::string error;
  int exit_code = 1;
  try {
    load_run_config(options.config, loaded);
    if (options.overwrite) start_anew(loaded.config, options.config);
    log::set_level(loaded.config.log_level);
    check_consistent(loaded, launch_from_environment().ranks);
  } catch (const Error& e) {
    if (launch_from_environment().ranks == 1) throw;
    error = e.what();
    exit_code = e.exit_code();
  }
  Placement placement =
      configure_threads(error.empty() ? static_cast<int>(loaded.config.parallel.threads) : 1);
  const ParallelConfig& parallel = loaded.config.parallel;
  MpiSession session(start_options({parallel.timeout, parallel.start_timeout}));
  check_started_alike(session, options.dry_run ? "train --dry-run" : "train", {});
  agree(*session.world(), error, exit_code);
  try {
    return train(loaded, options, session, placement);
  } catch (const Error& error) {
    throw Error(loaded.tree.with_places(error.what()), error.exit_code());
  }
}

}  // namespace

void add_train_command(CLI::App& program, Invocation& invocation) {
  auto options = std::make_shared<Options>();
  CLI::App* command = program.add_subcommand("train", "Train a model, alone or under mpirun");
  add_config_options(*command, options->config, true);
  command
      ->add_option("--resume", options->config.resume,
                   "Go on from a checkpoint: auto (the newest in the output directory) or a path")
      ->expected(0, 1)
      ->default_str("auto")
      ->check(not_empty())
      ->type_name("auto|DIR");
  command
      ->add_option("--allow-change", options->allowed_changes,
                   "Let a key, or the keys of a section, differ from those of the run that is gone "
                   "on with, although what follows is computed otherwise; may be repeated")
      ->allow_extra_args(false)
      ->type_name("KEY");
  auto* dry_run = command->add_flag(
      "--dry-run", options->dry_run,
      "Check tokenizer, data and output, print the effective configuration, memory, "
      "mesh and what the run would write where, and stop; nothing is written");
  command
      ->add_flag("--json", options->json,
                 "Print what --dry-run finds as one JSON object; a run's figures are in its "
                 "metrics.jsonl")
      ->needs(dry_run);
  command->add_flag(
      "--overwrite", options->overwrite,
      "Start anew and let checkpoints and metrics in the output directory go; with --resume=DIR "
      "only those of later steps");
  command->footer(R"(Examples:
  mpirun -n 2 adagate train configs/quickstart.yaml
  mpirun -n 2 adagate train configs/quickstart.yaml --set train.length=500s --output runs/short
  adagate train configs/quickstart.yaml --resume=runs/quickstart --output runs/longer)"
                  R"( --set train.length=1200s
  adagate train configs/quickstart.yaml --dry-run
  adagate train configs/quickstart.yaml --dry-run --json
Stopping:
  SIGUSR1 to mpirun, or SIGUSR1, SIGTERM, SIGINT or SIGHUP to one rank, saves a checkpoint and ends
  the run with status 0; so do Ctrl-C and a lost terminal without mpirun, where a second Ctrl-C ends
  at once with 130. SIGTERM or Ctrl-C to mpirun leaves the ranks one second for that and ends with
  status 1; mpirun --mca odls_base_sigkill_timeout 30 leaves them 30.)");
  command->callback([options, &invocation] {
    invocation.on_ranks = true;
    invocation.run = [options] { return run(*options); };
  });
}

}  // namespace adagate
