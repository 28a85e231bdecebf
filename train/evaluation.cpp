#include "train/evaluation.h"

#include "core/autograd/tape.h"
#include "core/base/heartbeat.h"
#include "train/batch_tensors.h"

namespace adagate {

EvaluationResult evaluate(Decoder& model, const EvaluationPass& pass, const Mesh& mesh,
                          RoutingStep* routing, const std::function<bool()>& stop) {
  NoRecording off;
  StepContext context{.routing = routing};
  double sum = 0;
  int64_t targets = 0;
  if (routing) routing->begin(pass.batches(), false);
  for (int64_t b = 0; b < pass.batches(); ++b) {
    if (stop && mesh.world->max<int64_t>(stop())) return {.stopped = true};
    beat();
    Batch batch = pass.batch(b);
    if (routing) routing->begin_micro_batch(b);
    LossTargets expected = targets_of(batch, model.config().vocabulary);
    CrossEntropy loss = model.loss(tokens_of(batch), expected, 1.0, context, rows_of(batch));
    sum += loss.sum.to_host<double>()[0];
    targets += batch.valid_targets;
  }
  if (routing) routing->end(*mesh.world);
  sum = mesh.world->sum(sum);
  targets = mesh.world->sum(targets);
  return {targets > 0 ? sum / static_cast<double>(targets) : 0.0, targets};
}

}  // namespace adagate
