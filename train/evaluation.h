// A model scored over a data set, by the metrics of its task.
#pragma once

#include <functional>

#include "data/data_loader.h"
#include "parallel/mesh.h"
#include "train/task.h"

namespace adagate {

struct EvaluationResult {
  Metrics metrics = {};
  int64_t targets = 0;
  bool stopped = false;  // before its end: there are no metrics

  double loss() const { return metric_named(kLossMetric, metrics).value; }
};

// Runs the pass without recording or dropout; the same result on every rank. `routing`, if given,
// has the statistics afterwards. Once `stop`, asked before each batch, is true on some rank, all of
// them stop. Collective: all ranks run as many batches.
EvaluationResult evaluate(const Task& task, Model& model, const EvaluationPass& pass,
                          const Mesh& mesh, RoutingStep* routing,
                          const std::function<bool()>& stop = {});

}  // namespace adagate
