#include "train/tasks/language_modelling.h"

#include <cmath>

#include "models/decoder.h"

namespace adagate {

std::unique_ptr<Model> make_language_model(const RunConfig& config, const Mesh& mesh) {
  return std::make_unique<Decoder>(config.model, config.moe, mesh);
}

Tensor score_next_tokens(Model& model, const Batch& batch, const Dataset&,
                         const StepContext& context) {
  return next_token_loss(model, batch, 1.0, context).sum;
}

std::vector<double> language_metrics(std::span<const double> sums, int64_t targets) {
  double loss = targets > 0 ? sums[0] / static_cast<double>(targets) : 0.0;
  return {loss, std::exp(loss)};
}

}  // namespace adagate
