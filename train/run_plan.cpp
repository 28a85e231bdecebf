#include "train/run_plan.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <sys/statvfs.h>
#include <unistd.h>

#include "core/base/bytes_text.h"
#include "core/io/safetensors.h"
#include "data/tokenizer.h"
#include "train/earlier_run.h"
#include "train/memory_check.h"
#include "train/resume.h"
#include "train/run_directory.h"
#include "train/saved_model.h"
#include "train/task_table.h"

namespace adagate {
namespace {

namespace fs = std::filesystem;

void plan_data(RunPlan& plan, const Tokenizer& tokenizer) {
  const RunConfig& c = plan.config;
  DataPlan& data = plan.data = task_named(c.task).data.plan(c, tokenizer);
  if (data.validation_samples > 0 && c.train.evaluate_samples > 0)
    data.validation_samples = std::min(data.validation_samples, c.train.evaluate_samples);
  if (data.samples >= 0) {
    Sampler sampler(sampler_config(c), data.samples);
    plan.steps_per_epoch = sampler.steps_in(0);
  }
  bool by_epochs = c.train.length.unit() == Duration::Unit::epochs;
  if (by_epochs && plan.steps_per_epoch < 0) return;
  plan.steps = c.train.length.steps({c.train.batch * c.model.context, plan.steps_per_epoch});
}

void plan_start(RunPlan& plan, const Tokenizer& tokenizer) {
  const CheckpointConfig& c = plan.config.checkpoint;
  if (c.resume == "auto") {
    auto latest = find_latest(fs::path(plan.config.output) / "checkpoints");
    if (latest) plan.resumes_from = latest->string();
  } else if (c.resume != "none") {
    named("checkpoint.resume", [&] { plan.resumes_from = resolve_checkpoint(c.resume).string(); });
  }
  if (!plan.resumes_from.empty())
    open_saved_run(plan.resumes_from, plan.config, tokenizer, task_named(plan.config.task));
  if (!c.initial_weights.empty())
    named("checkpoint.initial_weights", [&] { SafetensorsFile file(c.initial_weights); });
}

// The directory, or the nearest one above it that exists; throws Error if output can't be made.
fs::path writable_directory(const fs::path& output) {
  std::error_code error;
  fs::path at = fs::absolute(output).lexically_normal();
  while (!fs::exists(at, error) && at.has_relative_path()) at = at.parent_path();
  check(fs::is_directory(at, error), "{} is a file, not a directory", at.string());
  if (access(at.c_str(), W_OK | X_OK) != 0)
    fail("{}: nothing can be written there: {}", at.string(), std::strerror(errno));
  return at;
}

// The same as a training checks before it writes.
void check_output(const RunPlan& plan, const PlanOptions& options) {
  const RunConfig& c = plan.config;
  fs::path checkpoints = fs::path(c.output) / "checkpoints";
  std::optional<fs::path> from;
  if (!plan.resumes_from.empty()) from = plan.resumes_from;
  std::error_code error;
  OutputUse use{.output = c.output,
                .config_yaml = options.config_yaml,
                .inputs = options.config_files,
                .goes_on = from && fs::equivalent(from->parent_path(), checkpoints, error),
                .starts_again = c.checkpoint.resume == "auto" && !from,
                .overwrite = options.overwrite};
  for (const fs::path& input : inputs_of(c)) use.inputs.push_back(input);
  int64_t start = from ? step_in(from->filename().string()).value_or(-1) : -1;
  check_checkpoint_names(checkpoints, start + 1);
  check_no_input_goes(use);
  check_no_checkpoint_goes(use, from);
  check_no_result_goes(use);
  if (plan.steps >= 0) check_unfinished(use, plan.steps);
}

void plan_disk(RunPlan& plan, const fs::path& at) {
  const RunConfig& c = plan.config;
  // Values and two moments in fp32, of all ranks.
  auto parameters = static_cast<double>(planned_parameters(c).total);
  plan.checkpoint_bytes = 12 * parameters;
  // While one is being written, those that are kept are still there.
  double kept = static_cast<double>(c.checkpoint.keep) + 1;
  bool on_the_way = !c.checkpoint.every.is_zero();
  if (!on_the_way) {
    kept = c.checkpoint.save_at_end ? 1 : 0;
  } else if (plan.steps >= 0) {
    int64_t every = c.checkpoint.every.steps(
        {c.train.batch * c.model.context, std::max<int64_t>(1, plan.steps_per_epoch)});
    double all = static_cast<double>(plan.steps / every) + (c.checkpoint.save_at_end ? 1 : 0);
    kept = c.checkpoint.keep == 0 ? all : std::min(kept, all);
  }
  plan.checkpoints_bytes = kept * plan.checkpoint_bytes;
  struct statvfs disk {};
  if (statvfs(at.c_str(), &disk) == 0)
    plan.disk_free = static_cast<double>(disk.f_bavail) * static_cast<double>(disk.f_frsize);
  check(kept == 0 || plan.disk_free < 0 || plan.checkpoint_bytes <= plan.disk_free,
        "output: a checkpoint takes {}, but {} has {} free: free some space, or choose another "
        "--output",
        bytes_text(plan.checkpoint_bytes), at.string(), bytes_text(plan.disk_free));
}

}  // namespace

RunPlan plan_run(RunConfig config, const PlanOptions& options) {
  RunPlan plan;
  plan.config = std::move(config);
  plan.ranks = options.ranks;
  RunConfig& c = plan.config;
  std::shared_ptr<Tokenizer> tokenizer =
      named("data.tokenizer", [&] { return load_tokenizer(c.data.tokenizer); });
  plan.tokenizer = tokenizer->name();
  check_vocabulary(c, *tokenizer);
  plan_data(plan, *tokenizer);
  plan_start(plan, *tokenizer);
  plan.memory = estimate_memory(c, task_named(c.task), plan.ranks);
  plan.memory_budget = available_memory(options.local_ranks);
  check_memory(plan.memory, plan.memory_budget);
  fs::path at = named("output", [&] { return writable_directory(c.output); });
  check_output(plan, options);
  plan_disk(plan, at);
  return plan;
}

}  // namespace adagate
