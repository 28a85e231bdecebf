// adagate generate: text from a trained model.
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/commands.h"
#include "apps/launch.h"
#include "apps/options.h"
#include "apps/rank_options.h"
#include "apps/started_alike.h"
#include "core/base/counted.h"
#include "core/base/log.h"
#include "core/io/atomic_file.h"
#include "core/io/file_kind.h"
#include "models/generation.h"
#include "parallel/agree.h"
#include "parallel/mpi_session.h"
#include "parallel/placement.h"
#include "train/json_text.h"
#include "train/saved_model.h"

namespace adagate {
namespace {

struct Options {
  std::string checkpoint, tokenizer, prompt = "\n", prompt_file, device = "auto";
  SamplingOptions sampling;
  bool to_the_end = false, json = false;
  int64_t seed = 1, threads = 0;
  RankOptions ranks;
};

std::string json_report(const Options& options, size_t prompt_tokens,
                        const std::vector<int32_t>& added, const Tokenizer& tokenizer) {
  bool ended = static_cast<int64_t>(added.size()) < options.sampling.tokens;
  return json_text({{"prompt", options.prompt},
                    {"prompt_tokens", prompt_tokens},
                    {"text", tokenizer.decode(added)},
                    {"tokens", added},
                    {"end_of_text", ended}});
}

AutoregressiveModel& text_model_of(SavedModel& saved) {
  auto* model = dynamic_cast<AutoregressiveModel*>(saved.model.get());
  check(model, "{} was trained for the task {}, whose model writes no text", saved.run.string(),
        saved.task->name);
  return *model;
}

int run(Options options) {
  configure_threads(static_cast<int>(options.threads));
  MpiSession session(start_options(options.ranks));
  on_all_ranks(*session.world(), [&] {
    if (options.prompt_file.empty()) return;
    options.prompt = read_text_file(options.prompt_file, "prompt file");
    check_is_text(options.prompt, "prompt file " + options.prompt_file);
  });
  options.sampling.seed = static_cast<uint64_t>(options.seed);
  const SamplingOptions& s = options.sampling;
  check_started_alike(session, "generate",
                      {option("the prompt", options.prompt), option("--tokens", s.tokens),
                       option("--temperature", s.temperature), option("--top-k", s.top_k),
                       option("--top-p", s.top_p), option("--seed", s.seed),
                       option("--ignore-end", options.to_the_end)});
  SavedModel saved =
      load_model(options.checkpoint, options.tokenizer, session.world(), nullptr, options.device);
  AutoregressiveModel& model = text_model_of(saved);
  const Tokenizer& tokenizer = *saved.tokenizer;
  if (!options.to_the_end) options.sampling.stop_token = tokenizer.end_of_text();
  check(!options.prompt.empty(), "the prompt is empty: give at least one character");
  int64_t context = model.context();
  options.sampling.never = ids_without_token(tokenizer, model.vocabulary());
  std::vector<int32_t> prompt = tokenizer.encode(options.prompt);
  if (static_cast<int64_t>(prompt.size()) > context) {
    log::info("the prompt has {}, the model sees its last {}", counted(prompt.size(), "token"),
              context);
  }
  bool speaks = launch_from_environment().rank == 0;
  if (options.json) {
    auto added = generate(model, prompt, options.sampling);
    if (speaks) print_output(json_report(options, prompt.size(), added, tokenizer));
    return 0;
  }
  if (speaks) print_output(options.prompt);
  // A character may be spread over tokens: its bytes are printed as they come, in order.
  generate(model, prompt, options.sampling, [&](int32_t token) {
    if (speaks) print_output(tokenizer.decode(std::span<const int32_t>(&token, 1)));
  });
  if (speaks) print_output("\n");
  return 0;
}

}  // namespace

void add_generate_command(CLI::App& program, Invocation& invocation) {
  auto options = std::make_shared<Options>();
  CLI::App* command = program.add_subcommand("generate", "Continue a text with a trained model");
  add_run(*command, options->checkpoint);
  add_value(*command, "--tokenizer", options->tokenizer,
            "Another place of the tokenizer than that of the training or the run's copy", a_path());
  auto* prompt = add_value(*command, "--prompt", options->prompt, "Text to continue");
  prompt->default_str("a line break");
  add_value(*command, "--prompt-file", options->prompt_file, "File whose text to continue",
            a_path())
      ->excludes(prompt)
      ->type_name("FILE");
  SamplingOptions& s = options->sampling;
  add_value(*command, "--tokens", s.tokens, "Most tokens to add", between(1, 1e9));
  add_value(*command, "--temperature", s.temperature, "0: always the most probable token",
            between(0, 100));
  add_value(*command, "--top-k", s.top_k, "Draw among the k most probable tokens; 0: all",
            between(0, 1e9));
  add_value(*command, "--top-p", s.top_p, "Draw among the fewest tokens that reach probability p",
            between(0.0001, 1));
  add_value(*command, "--seed", options->seed, "Of the draws", at_least(0));
  command->add_flag("--ignore-end", options->to_the_end, "Go on after an end-of-text token");
  command->add_flag("--json", options->json, "Print one JSON object, at the end");
  add_device(*command, options->device);
  add_threads(*command, options->threads);
  add_rank_options(*command, options->ranks);
  command->footer(R"(Examples:
  adagate generate runs/quickstart --prompt "Shall I compare"
  adagate generate runs/quickstart --tokens 20 --json
  adagate generate runs/quickstart/checkpoints/step-00000600 --temperature 0 --tokens 50)");
  command->callback([options, &invocation] {
    invocation.on_ranks = true;
    invocation.run = [options] { return run(*options); };
  });
}

}  // namespace adagate
