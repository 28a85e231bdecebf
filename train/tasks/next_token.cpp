#include "train/tasks/next_token.h"

#include "models/decoder.h"
#include "train/batch_tensors.h"

namespace adagate {

void next_token_forward(Model& model, const Batch& batch, const StepContext& context) {
  auto& decoder = model_as<Decoder>(model);
  Device device = decoder.device();
  decoder.forward(tokens_of(batch, device), context, rows_of(batch, device));
}

BatchLoss next_token_loss(Model& model, const Batch& batch, double scale,
                          const StepContext& context) {
  auto& decoder = model_as<Decoder>(model);
  Device device = decoder.device();
  LossTargets targets = targets_of(batch, decoder.config().vocabulary, device);
  CrossEntropy loss =
      decoder.loss(tokens_of(batch, device), targets, scale, context, rows_of(batch, device));
  return {.roots = {loss.loss}, .sum = loss.sum};
}

int64_t causal_pairs_of(const Batch& batch) {
  int64_t pairs = 0;
  for (int32_t length : batch.lengths) pairs += causal_pairs(length);
  return pairs;
}

}  // namespace adagate
