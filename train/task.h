// A task is what a model is trained for: it binds the data, a model's inputs and loss, and what an
// evaluation is scored by. An entry of the table (train/task_table.h); whatever trains, evaluates
// or saves works with any.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/mesh.h"
#include "train/metric.h"
#include "train/objective.h"
#include "train/task_data.h"

namespace adagate {

struct Task {
  std::string_view name;
  std::string_view help;

  // Of config.model and config.moe, whose vocabulary is set, spread over the mesh. Throws Error on
  // settings that fit no model of the task. Nothing is allocated before it has a store.
  std::unique_ptr<Model> (*make_model)(const RunConfig& config, const Mesh& mesh) = nullptr;

  // The data, and what is known of it without preparing it, for --dry-run.
  TaskData data;

  // The loss that is trained on.
  Objective objective;

  // What an evaluation tells, the loss among them, and by which of them evaluations are compared.
  std::span<const MetricKind> metrics;
  std::string_view best = kLossMetric;
  // Figures of a batch that are added over batches and ranks, f64 [sums] on the model's device: of
  // the metrics what can be added. `data` is what the batch's sample ids are of: one that the task
  // has opened, which may know more of a sample than its tokens. Not recorded.
  int64_t sums = 0;
  Tensor (*score)(Model& model, const Batch& batch, const Dataset& data,
                  const StepContext& context) = nullptr;
  // The metrics' values, in their order, of the sums over everything and the number of targets.
  std::vector<double> (*values)(std::span<const double> sums, int64_t targets) = nullptr;
};

// The kind of the metric that evaluations are compared by.
const MetricKind& best_kind(const Task& task);

}  // namespace adagate
