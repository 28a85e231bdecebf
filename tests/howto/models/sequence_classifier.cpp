#include "models/sequence_classifier.h"

namespace adagate {

SequenceClassifier::SequenceClassifier(const ModelConfig& config, const MoeConfig& moe,
                                       const Mesh& mesh, int64_t classes)
    : body_(config, moe, mesh),
      head_({.in = config.width, .out = classes, .initial_stddev = config.initializer_range}),
      classes_(classes) {
  check(config.tie_embeddings,
        "model.tie_embeddings is false: a classifier has no head over tokens to untie");
  add("body", body_);
  add("head", head_);
}

Tensor SequenceClassifier::forward(const Tensor& tokens, const StepContext& context,
                                   const TokenRows& rows) {
  return head_.forward(body_.forward(tokens, context, rows));
}

FlopCounts SequenceClassifier::flops() const {
  FlopCounts counts = body_.flops();
  const ModelConfig& config = body_.config();
  counts.per_token += 2.0 * static_cast<double>(config.width * (classes_ - config.vocabulary));
  return counts;
}

}  // namespace adagate
