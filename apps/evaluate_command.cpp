// adagate evaluate: loss and routing of a trained model on a text.
#include <fmt/format.h>
#include <memory>
#include <nlohmann/json.hpp>
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
#include "train/json_text.h"
#include "train/observer.h"
#include "train/saved_model.h"
#include "train/signals.h"

namespace adagate {
namespace {

struct Options {
  std::string checkpoint, tokenizer, data, device = "auto";
  int64_t batch = 8, samples = 0, threads = 0;
  bool json = false;
  RankOptions ranks;
};

// Names and units are those of metrics.jsonl.
nlohmann::ordered_json json_of(const LayerRouting& layer) {
  return {{"block", layer.block},
          {"single_expert_share", layer.share_with(1)},
          {"assignments", layer.assignments()},
          {"load", layer.sums.assigned},
          {"entropy", layer.mean_entropy()},
          {"bytes_sent", layer.bytes_sent}};
}

std::string json_report(const EvaluationResult& result, const RoutingStep* routing) {
  nlohmann::ordered_json json;
  for (const Metric& metric : result.metrics) json[std::string(metric.kind.name)] = metric.value;
  json["targets"] = result.targets;
  if (routing) {
    json["single_expert_share"] = single_expert_share(*routing);
    json["experts_per_token"] = experts_per_token(*routing);
    json["moe"] = nlohmann::ordered_json::array();
    for (int64_t l = 0; l < routing->layers(); ++l)
      json["moe"].push_back(json_of(routing->layer(l)));
  }
  return json_text(json);
}

std::string text_report(const EvaluationResult& result, const RoutingStep* routing) {
  std::string report;
  for (const Metric& metric : result.metrics) report += text_of(metric, 1) + "  ";
  report += fmt::format("targets {}\n", result.targets);
  if (!routing) return report;
  RoutingReport table;
  table.add(*routing);
  return report +
         fmt::format("experts per token {:.3f}\n{}\n", experts_per_token(*routing), table.table());
}

int run(const Options& options) {
  install_stop_signals();  // which leave no half text in the cache
  configure_threads(static_cast<int>(options.threads));
  MpiSession session(start_options(options.ranks));
  check_started_alike(session, "evaluate",
                      {option("--batch", options.batch), option("--samples", options.samples),
                       option("--data", options.data.empty() ? "not given" : "given")});
  SavedModel saved =
      load_model(options.checkpoint, options.tokenizer, session.world(), nullptr, options.device);
  // Of this user: another one's could not be written.
  std::error_code error;
  auto temporary = std::filesystem::temp_directory_path(error);
  auto cache = (error ? "/tmp" : temporary) / fmt::format("adagate-cache-{}", getuid());
  Communicator& world = *saved.mesh.world;
  RunData data;
  if (options.data.empty()) {
    data = open_evaluation_data(saved, cache);
  } else {
    data.validation =
        saved.task->data.open_file(options.data, "--data", saved.config, *saved.tokenizer,
                                   {.folder = cache, .shared = CacheShared::by_node}, world);
  }
  EvaluationPass pass(*data.validation, options.batch, world.rank(), world.size(),
                      options.samples > 0 ? options.samples : -1);
  std::unique_ptr<RoutingStep> routing;
  if (saved.model->moe_layers() > 0) {
    routing = std::make_unique<RoutingStep>(routing_step_of(*saved.model));
  }
  EvaluationResult result = evaluate(*saved.task, *saved.model, pass, saved.mesh, routing.get(),
                                     [] { return stop_signal() != 0; });
  if (result.stopped) on_all_ranks(world, [] { check_not_stopped("interrupted"); });
  if (launch_from_environment().rank > 0) return 0;
  print_output(options.json ? json_report(result, routing.get())
                            : text_report(result, routing.get()));
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
  command->add_flag("--json", options->json, "Print one JSON object");
  add_device(*command, options->device);
  add_threads(*command, options->threads);
  add_rank_options(*command, options->ranks);
  command->footer(R"(Examples:
  adagate evaluate runs/quickstart
  adagate evaluate runs/quickstart --json
  mpirun -n 2 adagate evaluate runs/quickstart --data data/samples/shakespeare.txt --samples 64)");
  command->callback([options, &invocation] {
    invocation.on_ranks = true;
    invocation.run = [options] { return run(*options); };
  });
}

}  // namespace adagate
