// Those who watch a training: the loop tells them what happened and knows nothing of them.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/base/phase_timer.h"
#include "moe/routing_step.h"
#include "train/best_metric.h"
#include "train/config/config_changes.h"
#include "train/training_step.h"

namespace adagate {

// One optimizer step, over all ranks. `step` counts finished steps, from 1.
struct StepReport {
  int64_t step = 0, total_steps = 0, epoch = 0;
  int64_t consumed_tokens = 0;
  StepResult result;
  double learning_rate = 0;
  double seconds = 0;                        // wall time of the step
  std::array<double, kPhaseCount> phases{};  // seconds of rank 0 by phase
  double flops = 0;                          // forward and backward, all ranks
  double peak_flops = 0;                     // of all ranks, a second, as configured; 0: unknown
  int64_t peak_memory = 0;                   // bytes of tensors on rank 0
  std::optional<double> parameter_norm;      // not at every step
  const RoutingStep* routing = nullptr;      // null in dense models
  std::optional<BestMetric> best = {};       // of earlier steps
  // This step's own, which come after it, and those of later steps.
  int64_t evaluations_to_come = 0, checkpoints_to_come = 0;
};

struct EvaluationReport {
  int64_t step = 0;
  Metrics metrics = {};
  int64_t targets = 0;
  double seconds = 0;
  const RoutingStep* routing = nullptr;
  std::optional<BestMetric> best = {};  // with this one

  double loss() const { return metric_named(kLossMetric, metrics).value; }
};

struct CheckpointReport {
  int64_t step = 0;
  std::filesystem::path path;
  double seconds = 0;  // to save it
};

// A run has gone on from `step`; told with its next step, before that.
struct ResumeReport {
  int64_t step = 0;
  std::vector<ConfigChange> changes;  // of its configuration
};

enum class TrainingEnd { finished, loss_reached, stopped_by_signal };

class TrainingObserver {
 public:
  virtual ~TrainingObserver() = default;
  virtual void on_resume(const ResumeReport&) {}
  virtual void on_step(const StepReport&) {}
  virtual void on_evaluation(const EvaluationReport&) {}
  virtual void on_checkpoint(const CheckpointReport&) {}
  virtual void on_end(TrainingEnd) {}
};

// Share of token decisions that took exactly one expert, over all MoE layers; 0 without any.
double single_expert_share(const RoutingStep& routing);
// Mean number of experts per token and MoE layer.
double experts_per_token(const RoutingStep& routing);
// Assignments that a rank's experts worked on, the most over the mean of the ranks, of one layer or
// of all (which wait for each other layer by layer); 1 when even, or without any.
double rank_imbalance(const LayerRouting& layer);
double rank_imbalance(const RoutingStep& routing);

}  // namespace adagate
