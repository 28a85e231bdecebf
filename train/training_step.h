// One optimizer step: forward and backward of the micro-batches, reduction, clipping, update.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "core/nn/parameter_store.h"
#include "core/optim/adamw.h"
#include "data/batch.h"
#include "models/model.h"
#include "parallel/group_buffers.h"
#include "train/objective.h"

namespace adagate {

struct TrainingStepOptions {
  uint64_t seed = 1;
  double clip_norm = 1.0;  // 0: no clipping
  bool recompute_blocks = false;
};

// Figures of a step over all ranks; the same on every rank.
struct StepResult {
  double loss = 0;            // of the objective, mean per valid target
  double auxiliary_loss = 0;  // balance and z-loss of all MoE layers
  double grad_norm = 0;       // before clipping
  int64_t targets = 0;        // valid targets of the global batch
  int64_t tokens = 0;         // real tokens of the global batch
  int64_t visible_pairs = 0;  // (query, key) pairs of attention
  int64_t samples = 0;
  // Seconds up to the sums over ranks that a rank did not wait for others or send to them.
  double busy_mean = 0, busy_most = 0;  // over ranks
  bool skipped = false;                 // the gradient was not finite: nothing was updated
  bool stop_requested = false;          // some rank got a signal to stop
};

// Works on one model with one objective for its whole training. Every reduction is a plain sum: the
// loss is divided by the global number of valid targets before backward, so no rank count enters
// anywhere.
class TrainingStep {
 public:
  TrainingStep(Model& model, const Objective& objective, ParameterStore& store, AdamW& optimizer,
               const Mesh& mesh, const TrainingStepOptions& options);

  // `step` counts from 0. Collective; a rank's micro-batches may be empty. `stop` asks all ranks to
  // stop after this step.
  StepResult run(std::span<const Batch> micro_batches, int64_t step, double learning_rate,
                 bool stop);

  // L2 norm of all parameters' master values, each value once. Collective.
  double parameter_norm() const;

  const RoutingStep& routing() const { return routing_; }
  RoutingStep& routing() { return routing_; }

 private:
  void count_batch(std::span<const Batch> micro_batches, bool stop, StepResult& result);
  StepContext context_of(int64_t step);
  void counting_pass(std::span<const Batch> micro_batches, int64_t step);
  // The sum of the losses, f64 [1].
  Tensor forward_backward(const Batch& batch, int64_t step, double scale, bool last);
  Device device() const { return store_.options().device; }
  std::vector<double> read_figures(const Tensor& figures);
  void share(double loss_sum, double scale, StepResult& result);
  std::vector<GroupBuffer> buffers(Tensor FlatGroup::*which) const;  // of all groups

  Model& model_;
  const Objective& objective_;
  ParameterStore& store_;
  AdamW& optimizer_;
  Mesh mesh_;
  TrainingStepOptions options_;
  RoutingStep routing_;
  std::vector<GradientReducer> reducers_;  // by ParameterGroup
};

}  // namespace adagate
