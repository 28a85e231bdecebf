#include "train/plan_report.h"

#include <fmt/format.h>

#include "core/base/bytes_text.h"
#include "core/base/counted.h"
#include "core/ops/linear_cross_entropy.h"
#include "train/progress.h"
#include "train/task_table.h"

namespace adagate {
namespace {

// Without a store it takes no memory.
std::unique_ptr<Model> planned_model(const RunConfig& c) {
  return task_named(c.task).make_model(c, make_self_mesh());
}

// Elements that one block keeps of a token for backward.
double block_elements(const RunConfig& c, bool sparse) {
  const ModelConfig& m = c.model;
  auto width = static_cast<double>(m.width);
  double qkv = static_cast<double>((m.heads + 2 * m.key_value_heads()) * m.head_size());
  double hidden = static_cast<double>(m.feed_forward_width());
  if (sparse && c.moe.expert_feed_forward > 0) {
    hidden = static_cast<double>(c.moe.expert_feed_forward);
  }
  double feed_forward = hidden * (m.gated() ? 3 : 2);
  // The block's input, both norms' outputs, attention's output, the middle of the residual stream.
  double kept = 5 * width + qkv;
  if (!sparse) return kept + feed_forward;
  auto experts = static_cast<double>(c.moe.experts_per_token().most);
  return kept + experts * (2 * width + feed_forward) + 2 * static_cast<double>(c.moe.experts);
}

// "balance      paper (auto), times 0.01", one line; empty without MoE layers.
std::string balance_line(const RunConfig& c) {
  if (c.moe.moe_layers(c.model.layers) == 0) return "";
  BalanceConfig balance = c.moe.resolved_balance();
  return fmt::format("balance      loss {}{}, times {}\n", balance.loss,
                     c.moe.balance.loss == "auto" ? " (auto)" : "", balance.coefficient);
}

std::string flop_text(double flops) {
  if (flops < 1e8) return fmt::format("{:.2f} MFLOP", flops * 1e-6);
  if (flops < 1e14) return fmt::format("{:.1f} GFLOP", flops * 1e-9);
  return flops < 1e17 ? fmt::format("{:.1f} TFLOP", flops * 1e-12)
                      : fmt::format("{:.1f} PFLOP", flops * 1e-15);
}

// Estimates of absurd models end at the largest number rather than below zero.
int64_t bounded(double value) {
  return value < 9e18 ? static_cast<int64_t>(value) : int64_t{9'000'000'000'000'000'000};
}

}  // namespace

MemoryEstimate estimate_memory(const RunConfig& c, const Task& task, int ranks) {
  bool bf16 = c.precision == "bf16";
  ParameterCounts counts = count_parameters(*task.make_model(c, make_self_mesh()), 1);
  int64_t parameters =
      counts.total - counts.experts + counts.experts / std::max<int64_t>(1, c.parallel.expert);
  // Value, gradient and two moments in fp32, and the bf16 copy.
  MemoryEstimate memory{.parameters = parameters * (16 + (bf16 ? 2 : 0))};
  int64_t parts = ranks * c.train.accumulation;
  int64_t samples = (c.train.batch + parts - 1) / parts;
  double per_token = 0;
  bool checkpointing = c.train.activation_checkpointing == "block";
  for (int64_t i = 0; i < c.model.layers; ++i) {
    per_token += checkpointing ? static_cast<double>(c.model.width)
                               : block_elements(c, c.moe.is_moe_layer(i));
  }
  // A block made again, and in both cases the gradients of one block.
  per_token += (checkpointing ? 2 : 1) * block_elements(c, c.moe.moe_layers(c.model.layers) > 0);
  int64_t tokens = samples * c.model.context;
  memory.activations =
      bounded(per_token * static_cast<double>(tokens) * (bf16 ? 2 : 4) +
              static_cast<double>(logits_bytes(tokens, c.model.vocabulary, DType::f32)));
  return memory;
}

ParameterCounts planned_parameters(const RunConfig& c) {
  return count_parameters(*planned_model(c), c.moe.experts_per_token().expected);
}

double step_flops(const RunConfig& c) {
  int64_t tokens = c.train.batch * c.model.context;
  double assignments = c.moe.experts_per_token().expected *
                       static_cast<double>(c.moe.moe_layers(c.model.layers)) *
                       static_cast<double>(tokens);
  return training_flops(planned_model(c)->flops(), tokens,
                        c.train.batch * causal_pairs(c.model.context), bounded(assignments));
}

std::string plan_report(const RunConfig& c, int ranks) {
  double experts = c.moe.experts_per_token().expected;
  std::string_view note = gating_policy_entry(c.moe.gate.policy).plan_note;
  ParameterCounts counts = planned_parameters(c);
  MemoryEstimate memory = estimate_memory(c, task_named(c.task), ranks);
  int64_t tokens = c.train.batch * c.model.context;
  std::string text = fmt::format(
      "parameters   {} total, {} active per token{}\n"
      "memory       {} per rank for parameters and optimizer, about {} for activations and logits\n"
      "mesh         {} = {} expert-parallel x {}; data parallel over all\n"
      "step         {} of {} = {}, {}\n",
      format_count(static_cast<double>(counts.total)),
      format_count(static_cast<double>(counts.active)),
      c.moe.moe_layers(c.model.layers) > 0
          ? fmt::format(" ({} of {} in {} of {}{}{})", counted(experts, "expert"), c.moe.experts,
                        c.moe.moe_layers(c.model.layers), counted(c.model.layers, "layer"),
                        note.empty() ? "" : ", ", note)
          : "",
      bytes_text(memory.parameters), bytes_text(memory.activations), counted(ranks, "rank"),
      c.parallel.expert, counted(ranks / c.parallel.expert, "replica"),
      counted(c.train.batch, "sample"), counted(c.model.context, "token"), counted(tokens, "token"),
      flop_text(step_flops(c)));
  return text + balance_line(c);
}

}  // namespace adagate
