#include "train/evaluation.h"

#include "core/autograd/tape.h"
#include "core/base/heartbeat.h"
#include "core/tensor/accumulate.h"
#include "train/batch_tensors.h"

namespace adagate {

EvaluationResult evaluate(Decoder& model, const EvaluationPass& pass, const Mesh& mesh,
                          RoutingStep* routing, const std::function<bool()>& stop) {
  NoRecording off;
  StepContext context{.routing = routing};
  Device device = model.device();
  Tensor sums = Tensor::zeros({1}, DType::f64, device);
  int64_t targets = 0;
  if (routing) routing->begin(pass.batches(), false);
  for (int64_t b = 0; b < pass.batches(); ++b) {
    if (stop && mesh.world->max<int64_t>(stop())) return {.stopped = true};
    beat();
    Batch batch = pass.batch(b);
    if (routing) routing->begin_micro_batch(b);
    LossTargets expected = targets_of(batch, model.config().vocabulary, device);
    CrossEntropy loss =
        model.loss(tokens_of(batch, device), expected, 1.0, context, rows_of(batch, device));
    accumulate_into(sums, loss.sum);
    targets += batch.valid_targets;
  }
  if (routing) routing->end(*mesh.world);
  double sum = mesh.world->sum(sums.to_host<double>()[0]);
  targets = mesh.world->sum(targets);
  return {targets > 0 ? sum / static_cast<double>(targets) : 0.0, targets};
}

}  // namespace adagate
