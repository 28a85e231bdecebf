#include "train/tasks/classification.h"

#include <algorithm>

#include "core/io/safetensors.h"
#include "data/labelled_lines.h"
#include "models/sequence_classifier.h"
#include "parallel/agree.h"
#include "parallel/same_on_all_ranks.h"
#include "train/batch_tensors.h"
#include "train/config/run_config.h"
#include "train/resume.h"

namespace adagate {
namespace {

constexpr int64_t kClasses = 2;

Tensor class_logits(Model& model, const Batch& batch, const StepContext& context) {
  Device device = model.device();
  return model_as<SequenceClassifier>(model).forward(tokens_of(batch, device), context,
                                                     rows_of(batch, device));
}

// Samples whose most probable class is the right one.
double count_right(const Tensor& logits, const Batch& batch) {
  std::vector<float> z = logits.to(Device{}).to_floats();
  double right = 0;
  for (size_t row = 0; row < batch.targets.size(); ++row) {
    if (batch.targets[row] == kIgnoredTarget) continue;
    const float* first = z.data() + row * kClasses;
    right += std::max_element(first, first + kClasses) - first == batch.targets[row];
  }
  return right;
}

void open_validation_into(RunData& data, const RunConfig& config, const Tokenizer& tokenizer,
                          const DataCache& cache, Communicator& world) {
  const std::string& path = config.data.validation;
  check(config.data.validation_share == 0,
        "data.validation_share: a classification holds nothing out; name data.validation");
  if (path.empty()) return;
  data.validation = open_labelled_file(path, "data.validation", config, tokenizer, cache, world);
  data.validation_hash = hash_text(checksum_file(path));
}

}  // namespace

std::unique_ptr<Model> make_classifier(const RunConfig& config, const Mesh& mesh) {
  return std::make_unique<SequenceClassifier>(config.model, config.moe, mesh, kClasses);
}

// [data]
std::unique_ptr<Dataset> open_labelled_file(const std::string& path, const std::string& key,
                                            const RunConfig& config, const Tokenizer& tokenizer,
                                            const DataCache&, Communicator& world) {
  std::unique_ptr<Dataset> lines;
  uint64_t hash = 0;
  on_all_ranks(world, [&] {
    named(key, [&] {
      lines = std::make_unique<LabelledLines>(path, tokenizer, config.model.context, kClasses);
      hash = checksum_file(path);
    });
  });
  same_on_all_ranks(world, {file_fact(key, path, hash)}, "give all ranks the same data");
  return lines;
}

RunData open_labelled_validation(const RunConfig& config, const Tokenizer& tokenizer,
                                 const DataCache& cache, Communicator& world) {
  RunData data;
  open_validation_into(data, config, tokenizer, cache, world);
  return data;
}

RunData open_labelled_data(const RunConfig& config, const Tokenizer& tokenizer,
                           const DataCache& cache, Communicator& world) {
  RunData data;
  const std::string& path = config.data.train;
  data.train = open_labelled_file(path, "data.train", config, tokenizer, cache, world);
  data.train_hash = hash_text(checksum_file(path));
  open_validation_into(data, config, tokenizer, cache, world);
  return data;
}

DataPlan plan_labelled_data(const RunConfig& config, const Tokenizer& tokenizer) {
  auto samples = [&](const char* key, const std::string& path) {
    return named(
        key, [&] { return LabelledLines(path, tokenizer, config.model.context, kClasses).size(); });
  };
  DataPlan plan{.train = {.path = config.data.train}};
  plan.samples = samples("data.train", config.data.train);
  if (config.data.validation.empty()) return plan;
  plan.validation = FilePlan{.path = config.data.validation};
  plan.validation_samples = samples("data.validation", config.data.validation);
  return plan;
}
// [end]

// [objective]
void classification_forward(Model& model, const Batch& batch, const StepContext& context) {
  class_logits(model, batch, context);
}

BatchLoss classification_loss(Model& model, const Batch& batch, double scale,
                              const StepContext& context) {
  LossTargets targets = targets_of(batch, kClasses, model.device());
  CrossEntropy loss = cross_entropy(class_logits(model, batch, context), targets, scale);
  return {.roots = {loss.loss}, .sum = loss.sum};
}
// [end]

// [score]
Tensor score_classes(Model& model, const Batch& batch, const Dataset&, const StepContext& context) {
  Device device = model.device();
  Tensor logits = class_logits(model, batch, context);
  Tensor sums = Tensor::zeros({2}, DType::f64, device);
  sums.slice(0, 1).copy_from(cross_entropy(logits, targets_of(batch, kClasses, device), 1.0).sum);
  double right = count_right(logits, batch);
  sums.slice(1, 2).copy_from(Tensor::from(std::span<const double>(&right, 1), {1}));
  return sums;
}

std::vector<double> classification_metrics(std::span<const double> sums, int64_t targets) {
  auto samples = static_cast<double>(std::max<int64_t>(1, targets));
  return {sums[0] / samples, sums[1] / samples};
}
// [end]

}  // namespace adagate
