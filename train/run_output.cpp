#include "train/run_output.h"

#include <algorithm>

#include "core/base/log.h"
#include "core/io/atomic_file.h"
#include "parallel/agree.h"
#include "train/kept_configs.h"
#include "train/kept_tokenizer.h"
#include "train/run_directory.h"
#include "train/saved_model.h"
#include "train/shared_output.h"

namespace adagate {
namespace fs = std::filesystem;

RunOutput::RunOutput(const RunConfig& config, Options options, Communicator& world)
    : config_(config),
      options_(std::move(options)),
      world_(world),
      directory_(world, config.output) {
  check_output_shared(world_, config_.output);
  resumed_from_ = find_checkpoint();
  on_all_ranks(world_, [&] {
    if (world_.rank() == 0) check_use();
  });
}

fs::path RunOutput::checkpoints() const {
  return fs::path(config_.output) / "checkpoints";
}

bool RunOutput::goes_on_here() const {
  std::error_code error;
  return resumed_from_ && fs::equivalent(resumed_from_->parent_path(), checkpoints(), error);
}

std::optional<fs::path> RunOutput::find_checkpoint() const {
  const std::string& from = config_.checkpoint.resume;
  if (from == "none") return std::nullopt;
  if (from != "auto") {
    fs::path checkpoint;
    on_all_ranks(world_, [&] {
      named("checkpoint.resume", [&] { checkpoint = resolve_checkpoint(from); });
    });
    return checkpoint;
  }
  // Rank 0 looks: a network file system may show the others an older state. The output may have
  // another path on every host.
  std::string latest;
  if (world_.rank() == 0) {
    latest = find_latest(checkpoints()).value_or(fs::path()).filename().string();
  }
  latest = broadcast_text(world_, latest, 0);
  if (!latest.empty()) return checkpoints() / latest;
  log::info("no checkpoint in {} yet: starting anew", checkpoints().string());
  return std::nullopt;
}

OutputUse RunOutput::use() const {
  auto inputs = options_.config_files;
  for (const fs::path& input : inputs_of(config_)) inputs.push_back(input);
  return {.output = config_.output,
          .config_yaml = options_.config_yaml,
          .inputs = std::move(inputs),
          .goes_on = goes_on_here(),
          .starts_again = config_.checkpoint.resume == "auto" && !resumed_from_,
          .overwrite = options_.overwrite};
}

void RunOutput::check_use() const {
  named("output", [&] { AtomicFile writable(config_file(config_.output)); });
  int64_t start = resumed_from_ ? step_in(resumed_from_->filename().string()).value_or(-1) : -1;
  check_checkpoint_names(checkpoints(), start + 1);
  check_no_input_goes(use());
  clean_temporaries(config_.output);
  check_no_checkpoint_goes(use(), resumed_from_);
  check_no_result_goes(use());
}

void RunOutput::claim(int64_t total_steps) {
  on_all_ranks(world_, [&] {
    if (world_.rank() != 0) return;
    check_unfinished(use(), total_steps);
    auto abandoned = later_checkpoints(checkpoints(), resumed_from_);
    std::for_each(abandoned.rbegin(), abandoned.rend(), remove_checkpoint);
    clean_checkpoints(checkpoints());  // also where no save follows
    clean_temporaries(config_.output);
  });
  lock_ = directory_.keep();
}

void RunOutput::begin(const Tokenizer& tokenizer, int64_t start, const std::string& earlier) {
  on_all_ranks(world_, [&] {
    if (world_.rank() != 0) return;
    keep_tokenizer(config_.output, config_.data.tokenizer, tokenizer);
    keep_configuration(config_.output, options_.config_yaml, start, earlier);
  });
}

}  // namespace adagate
