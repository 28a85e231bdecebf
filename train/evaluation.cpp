#include "train/evaluation.h"

#include "core/autograd/tape.h"
#include "core/base/heartbeat.h"
#include "core/tensor/accumulate.h"

namespace adagate {

EvaluationResult evaluate(const Task& task, Model& model, const EvaluationPass& pass,
                          const Mesh& mesh, RoutingStep* routing,
                          const std::function<bool()>& stop) {
  NoRecording off;
  StepContext context{.routing = routing};
  Tensor sums = Tensor::zeros({task.sums}, DType::f64, model.device());
  int64_t targets = 0;
  if (routing) routing->begin(pass.batches(), false);
  for (int64_t b = 0; b < pass.batches(); ++b) {
    if (stop && mesh.world->max<int64_t>(stop())) return {.stopped = true};
    beat();
    Batch batch = pass.batch(b);
    if (routing) routing->begin_micro_batch(b);
    accumulate_into(sums, task.score(model, batch, pass.dataset(), context));
    targets += batch.valid_targets;
  }
  if (routing) routing->end(*mesh.world);
  std::vector<double> totals = sums.to_host<double>();
  mesh.world->sum_in_place(std::span<double>(totals));
  targets = mesh.world->sum(targets);
  return {.metrics = metrics_of(task.metrics, task.values(totals, targets)), .targets = targets};
}

}  // namespace adagate
