// Language modelling: each next token of a text, by a decoder; its perplexity.
#pragma once

#include <array>

#include "train/task.h"
#include "train/tasks/next_token.h"
#include "train/text_data.h"

namespace adagate {

std::unique_ptr<Model> make_language_model(const RunConfig& config, const Mesh& mesh);
Tensor score_next_tokens(Model& model, const Batch& batch, const Dataset& data,
                         const StepContext& context);
std::vector<double> language_metrics(std::span<const double> sums, int64_t targets);

inline constexpr std::array kLanguageMetrics = {
    MetricKind{.name = kLossMetric, .help = "mean cross-entropy per target, nats"},
    MetricKind{.name = "perplexity", .help = "exp of the loss", .digits = 2},
};

inline constexpr Task kLanguageModelling{.name = "language_modelling",
                                         .help = "each next token of a text",
                                         .make_model = make_language_model,
                                         .data = kTextData,
                                         .objective = kNextToken,
                                         .metrics = kLanguageMetrics,
                                         .sums = 1,
                                         .score = score_next_tokens,
                                         .values = language_metrics};

}  // namespace adagate
