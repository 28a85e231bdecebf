// A RunPlan for people and for programs.
#include <fmt/format.h>
#include <limits>

#include "core/base/bytes_text.h"
#include "core/base/counted.h"
#include "train/run_plan.h"

namespace adagate {
namespace {

std::string text_line(const TextPlan& text) {
  return fmt::format("{} ({}, {}{})", text.path, text.is_token_file ? "token file" : "text",
                     bytes_text(text.bytes),
                     text.tokens >= 0 ? ", " + counted(text.tokens, "token") : "");
}

std::string known(int64_t count, std::string_view noun) {
  return count >= 0 ? counted(count, noun) : fmt::format("{}s not known before tokenizing", noun);
}

}  // namespace

std::string text_of(const RunPlan& plan) {
  const RunConfig& c = plan.config;
  std::string text = plan_report(c, plan.ranks);
  if (plan.memory_budget.bytes < std::numeric_limits<int64_t>::max())
    text += fmt::format("memory left  {} for each rank, by {}\n",
                        bytes_text(plan.memory_budget.bytes), plan.memory_budget.source);
  text +=
      fmt::format("tokenizer    {} of {}\n", plan.tokenizer, counted(c.model.vocabulary, "token"));
  text += fmt::format("train on     {}\n", text_line(plan.train));
  text += fmt::format("             {}, {} in an epoch; {} in all\n", known(plan.samples, "sample"),
                      known(plan.steps_per_epoch, "step"), known(plan.steps, "step"));
  if (plan.validation) text += fmt::format("evaluate on  {}\n", text_line(*plan.validation));
  if (c.data.has_validation())
    text += fmt::format("{}{} in an evaluation\n",
                        plan.validation ? "             " : "evaluate on  the end of it: ",
                        known(plan.validation_samples, "sample"));
  text += fmt::format("start        {}\n", !plan.resumes_from.empty() ? plan.resumes_from
                                           : !c.checkpoint.initial_weights.empty()
                                               ? c.checkpoint.initial_weights
                                               : "random weights");
  bool caches = !plan.train.is_token_file || (plan.validation && !plan.validation->is_token_file);
  text += fmt::format("write to     {}: config.yaml, metrics.jsonl, checkpoints{}\n", c.output,
                      caches ? ", cache (the tokens of texts)" : "");
  text += fmt::format("             {} a checkpoint, up to {} at one time{}\n",
                      bytes_text(plan.checkpoint_bytes), bytes_text(plan.checkpoints_bytes),
                      plan.disk_free >= 0 ? ", " + bytes_text(plan.disk_free) + " free" : "");
  return text;
}

}  // namespace adagate
