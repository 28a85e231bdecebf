// A RunPlan for people and for programs.
#include <fmt/format.h>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/base/bytes_text.h"
#include "core/base/counted.h"
#include "train/run_plan.h"

namespace adagate {
namespace {

std::string text_line(const FilePlan& text) {
  return fmt::format("{} ({}, {}{})", text.path, text.is_token_file ? "token file" : "text",
                     bytes_text(text.bytes),
                     text.tokens >= 0 ? ", " + counted(text.tokens, "token") : "");
}

std::string known(int64_t count, std::string_view noun) {
  return count >= 0 ? counted(count, noun) : fmt::format("{}s not known before tokenizing", noun);
}

// null where there is none: below zero or the empty text.
nlohmann::ordered_json or_null(int64_t value) {
  return value >= 0 ? nlohmann::ordered_json(value) : nlohmann::ordered_json();
}

nlohmann::ordered_json or_null(const std::string& text) {
  return text.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(text);
}

nlohmann::ordered_json json_of(const FilePlan& text, int64_t samples) {
  return {{"path", text.path},
          {"token_file", text.is_token_file},
          {"bytes", or_null(text.bytes)},
          {"tokens", or_null(text.tokens)},
          {"samples", or_null(samples)}};
}

// null: no validation.
nlohmann::ordered_json validation_json(const RunPlan& plan) {
  if (plan.data.validation) return json_of(*plan.data.validation, plan.data.validation_samples);
  if (!plan.config.data.has_validation()) return nullptr;
  FilePlan end = plan.data.train;  // a share of it, which is not counted apart
  end.bytes = end.tokens = -1;
  return json_of(end, plan.data.validation_samples);
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
  text += fmt::format("train on     {}\n", text_line(plan.data.train));
  text += fmt::format("             {}, {} in an epoch; {} in all\n",
                      known(plan.data.samples, "sample"), known(plan.steps_per_epoch, "step"),
                      known(plan.steps, "step"));
  if (plan.data.validation)
    text += fmt::format("evaluate on  {}\n", text_line(*plan.data.validation));
  if (c.data.has_validation())
    text += fmt::format("{}{} in an evaluation\n",
                        plan.data.validation ? "             " : "evaluate on  the end of it: ",
                        known(plan.data.validation_samples, "sample"));
  text += fmt::format("start        {}\n", !plan.resumes_from.empty() ? plan.resumes_from
                                           : !c.checkpoint.initial_weights.empty()
                                               ? c.checkpoint.initial_weights
                                               : "random weights");
  bool caches = !plan.data.train.is_token_file ||
                (plan.data.validation && !plan.data.validation->is_token_file);
  text += fmt::format("write to     {}: config.yaml, metrics.jsonl, checkpoints{}\n", c.output,
                      caches ? ", cache (the tokens of texts)" : "");
  text += fmt::format("             {} a checkpoint, up to {} at one time{}\n",
                      bytes_text(plan.checkpoint_bytes), bytes_text(plan.checkpoints_bytes),
                      plan.disk_free >= 0 ? ", " + bytes_text(plan.disk_free) + " free" : "");
  return text;
}

nlohmann::ordered_json json_of(const RunPlan& plan) {
  const RunConfig& c = plan.config;
  ParameterCounts counts = planned_parameters(c);
  bool limited = plan.memory_budget.bytes < std::numeric_limits<int64_t>::max();
  return {{"parameters", counts.total},
          {"active_parameters", counts.active},
          {"ranks", plan.ranks},
          {"expert_parallel", c.parallel.expert},
          {"samples_per_step", c.train.batch},
          {"tokens_per_step", c.train.batch * c.model.context},
          {"flops_per_step", step_flops(c)},
          {"steps_per_epoch", or_null(plan.steps_per_epoch)},
          {"steps", or_null(plan.steps)},
          {"memory_parameters_bytes", plan.memory.parameters},
          {"memory_activations_bytes", plan.memory.activations},
          {"memory_available_bytes", or_null(limited ? plan.memory_budget.bytes : -1)},
          {"memory_available_by", or_null(limited ? plan.memory_budget.source : "")},
          {"tokenizer", plan.tokenizer},
          {"vocabulary", c.model.vocabulary},
          {"train", json_of(plan.data.train, plan.data.samples)},
          {"validation", validation_json(plan)},
          {"resumes_from", or_null(plan.resumes_from)},
          {"initial_weights", or_null(c.checkpoint.initial_weights)},
          {"output", c.output},
          {"checkpoint_bytes", static_cast<int64_t>(plan.checkpoint_bytes)},
          {"checkpoints_bytes", static_cast<int64_t>(plan.checkpoints_bytes)},
          {"disk_free_bytes", or_null(static_cast<int64_t>(plan.disk_free))}};
}

}  // namespace adagate
