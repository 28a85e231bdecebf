// Classification of texts in two classes; its accuracy.
#pragma once

#include <array>

#include "train/task.h"
#include "train/tasks/next_token.h"

namespace adagate {

std::unique_ptr<Model> make_classifier(const RunConfig& config, const Mesh& mesh);

RunData open_labelled_data(const RunConfig& config, const Tokenizer& tokenizer,
                           const DataCache& cache, Communicator& world);
RunData open_labelled_validation(const RunConfig& config, const Tokenizer& tokenizer,
                                 const DataCache& cache, Communicator& world);
std::unique_ptr<Dataset> open_labelled_file(const std::string& path, const std::string& key,
                                            const RunConfig& config, const Tokenizer& tokenizer,
                                            const DataCache& cache, Communicator& world);
DataPlan plan_labelled_data(const RunConfig& config, const Tokenizer& tokenizer);

void classification_forward(Model& model, const Batch& batch, const StepContext& context);
BatchLoss classification_loss(Model& model, const Batch& batch, double scale,
                              const StepContext& context);
Tensor score_classes(Model& model, const Batch& batch, const Dataset& data,
                     const StepContext& context);
std::vector<double> classification_metrics(std::span<const double> sums, int64_t targets);

inline constexpr std::array kClassificationMetrics = {
    MetricKind{.name = kLossMetric, .help = "mean cross-entropy per sample, nats"},
    MetricKind{.name = "accuracy",
               .help = "share of the samples whose most probable class is the right one",
               .better = Better::higher,
               .digits = 3},
};

inline constexpr Task kClassification{.name = "classification",
                                      .help = "one of two classes for a text",
                                      .make_model = make_classifier,
                                      .data = {.open = open_labelled_data,
                                               .open_validation = open_labelled_validation,
                                               .open_file = open_labelled_file,
                                               .plan = plan_labelled_data},
                                      .objective = {.forward = classification_forward,
                                                    .loss = classification_loss,
                                                    .visible_pairs = causal_pairs_of},
                                      .metrics = kClassificationMetrics,
                                      .best = "accuracy",
                                      .sums = 2,
                                      .score = score_classes,
                                      .values = classification_metrics};

}  // namespace adagate
