// adagate evaluate: loss and routing of a trained model on a text.
#include <cmath>
#include <fmt/format.h>
#include <memory>
#include <unistd.h>

#include "apps/commands.h"
#include "apps/launch.h"
#include "apps/options.h"
#include "apps/rank_options.h"
#include "apps/started_alike.h"
#include "moe/routing_report.h"
#include "parallel/agree.h"
#include "parallel/mpi_session.h"
#include "parallel/placement.h"
#include "train/evaluation.h"
#include "train/evaluation_data.h"
#include "train/observer.h"
#include "train/saved_model.h"
#include "train/signals.h"
#include "train/text_data.h"

namespace adagate {
namespace {

struct Options {
  std::string checkpoint, tokenizer, data;
  int64_t batch = 8, samples = 0, threads = 0;
  RankOptions ranks;
};

int run(const Options& options) {
  install_stop_signals();  // which leave no half text in the cache
  configure_threads(static_cast<int>(options.threads));
  MpiSession session(start_options(options.ranks));
  check_started_alike(session, "evaluate",
                      {option("--batch", options.batch), option("--samples", options.samples),
                       option("--data", options.data.empty() ? "not given" : "given")});
  SavedModel saved = load_model(options.checkpoint, options.tokenizer, session.world());
  // Of this user: another one's could not be written.
  std::error_code error;
  auto temporary = std::filesystem::temp_directory_path(error);
  auto cache = (error ? "/tmp" : temporary) / fmt::format("adagate-cache-{}", getuid());
  Communicator& world = *saved.mesh.world;
  RunData data;
  if (options.data.empty()) {
    data = open_evaluation_data(saved, cache);
  } else {
    data.validation = open_text(options.data, "--data", *saved.tokenizer,
                                saved.config.model.context, cache, world, CacheShared::by_node);
  }
  EvaluationPass pass(*data.validation, options.batch, world.rank(), world.size(),
                      options.samples > 0 ? options.samples : -1);
  std::unique_ptr<RoutingStep> routing;
  if (saved.model->moe_layers() > 0) {
    routing = std::make_unique<RoutingStep>(saved.model->moe_layers(), saved.config.moe.experts,
                                            saved.config.moe.resolved_balance(),
                                            saved.model->moe_blocks());
  }
  EvaluationResult result =
      evaluate(*saved.model, pass, saved.mesh, routing.get(), [] { return stop_signal() != 0; });
  if (result.stopped) on_all_ranks(world, [] { check_not_stopped("interrupted"); });
  if (launch_from_environment().rank > 0) return 0;
  std::string report = fmt::format("loss {:.5f}  perplexity {:.3f}  targets {}\n", result.loss,
                                   std::exp(result.loss), result.targets);
  if (routing) {
    RoutingReport table;
    table.add(*routing);
    report +=
        fmt::format("experts per token {:.3f}\n{}\n", experts_per_token(*routing), table.table());
  }
  print_output(report);
  return 0;
}

}  // namespace

void add_evaluate_command(CLI::App& program, Invocation& invocation) {
  auto options = std::make_shared<Options>();
  CLI::App* command = program.add_subcommand("evaluate", "Measure a trained model on a text");
  add_run(*command, options->checkpoint);
  add_value(*command, "--data", options->data,
            "Token file or text file; without it the run's data.validation", a_path());
  add_value(*command, "--tokenizer", options->tokenizer,
            "Another place of the tokenizer than that of the training or the run's copy", a_path());
  add_value(*command, "--batch", options->batch, "Samples at a time per rank", between(1, 1 << 20));
  add_value(*command, "--samples", options->samples,
            "Only so many samples, spread evenly over the data; 0: all", between(0, 1e12));
  add_threads(*command, options->threads);
  add_rank_options(*command, options->ranks);
  command->footer(R"(Examples:
  adagate evaluate runs/quickstart
  mpirun -n 2 adagate evaluate runs/quickstart --data data/samples/shakespeare.txt --samples 64)");
  command->callback([options, &invocation] {
    invocation.on_ranks = true;
    invocation.run = [options] { return run(*options); };
  });
}

}  // namespace adagate
