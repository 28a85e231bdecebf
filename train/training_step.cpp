#include "train/training_step.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/base/heartbeat.h"
#include "core/base/phase_timer.h"
#include "core/tensor/accumulate.h"
#include "core/tensor/read_together.h"

namespace adagate {

TrainingStep::TrainingStep(Model& model, const Objective& objective, ParameterStore& store,
                           AdamW& optimizer, const Mesh& mesh, const TrainingStepOptions& options)
    : model_(model),
      objective_(objective),
      store_(store),
      optimizer_(optimizer),
      mesh_(mesh),
      options_(options),
      routing_(routing_step_of(model)),
      reducers_(make_reducers(buffers(&FlatGroup::grad))) {}

StepResult TrainingStep::run(std::span<const Batch> micro_batches, int64_t step,
                             double learning_rate, bool stop) {
  StepResult result;
  {
    PhaseScope phase(Phase::reduce);
    count_batch(micro_batches, stop, result);
  }
  store_.clear_gradients();
  routing_.begin(static_cast<int64_t>(micro_batches.size()));
  if (routing_.needs_counting_pass()) counting_pass(micro_batches, step);

  double scale = result.targets > 0 ? 1.0 / static_cast<double>(result.targets) : 0.0;
  // The sum of the losses, and of the squares of each group's gradient.
  Tensor figures = Tensor::zeros({1 + kParameterGroups}, DType::f64, device());
  for (size_t m = 0; m < micro_batches.size(); ++m) {
    beat();
    routing_.begin_micro_batch(static_cast<int64_t>(m));
    accumulate_into(figures.slice(0, 1),
                    forward_backward(micro_batches[m], step, scale, m + 1 == micro_batches.size()));
  }
  {
    PhaseScope phase(Phase::reduce);
    store_.zero_untouched_gradients();
    for (GradientReducer& reducer : reducers_) reducer.finish();
    routing_.reduce_rest(*mesh_.world);
  }
  std::vector<GroupBuffer> gradients = buffers(&FlatGroup::grad);
  std::vector<double> sums;
  {
    PhaseScope phase(Phase::optimizer);
    sum_squares(gradients, figures.slice(1, 1 + kParameterGroups));
    sums = read_figures(figures);
  }
  {
    PhaseScope phase(Phase::reduce);
    share(sums[0], scale, result);
  }
  result.auxiliary_loss = routing_.auxiliary_loss();

  PhaseScope phase(Phase::optimizer);
  result.grad_norm = norm_from_squares(gradients, std::span(sums).subspan(1));
  // Decided from the reduced value, so all ranks decide alike.
  result.skipped = !std::isfinite(result.grad_norm) || !std::isfinite(result.loss);
  if (!result.skipped) {
    double clip = options_.clip_norm;
    double factor = clip > 0 && result.grad_norm > clip ? clip / result.grad_norm : 1.0;
    optimizer_.step(learning_rate, factor);
    model_.end_step(routing_);
  }
  return result;
}

void TrainingStep::count_batch(std::span<const Batch> micro_batches, bool stop,
                               StepResult& result) {
  int64_t counts[5] = {0, 0, 0, 0, stop};
  for (const Batch& batch : micro_batches) {
    counts[0] += batch.valid_targets;
    counts[2] += batch.rows;
    counts[1] += std::accumulate(batch.lengths.begin(), batch.lengths.end(), int64_t{0});
    counts[3] += objective_.visible_pairs(batch);
  }
  mesh_.world->sum_in_place(std::span<int64_t>(counts));
  result.targets = counts[0];
  result.tokens = counts[1];
  result.samples = counts[2];
  result.visible_pairs = counts[3];
  result.stop_requested = counts[4] > 0;
}

StepContext TrainingStep::context_of(int64_t step) {
  return {.training = true, .seed = options_.seed, .step = step, .routing = &routing_};
}

// The balance losses look at the whole global batch: with several micro-batches its loads must be
// known before the first backward.
void TrainingStep::counting_pass(std::span<const Batch> micro_batches, int64_t step) {
  PhaseScope phase(Phase::forward);
  NoRecording off;
  for (size_t m = 0; m < micro_batches.size(); ++m) {
    routing_.begin_micro_batch(static_cast<int64_t>(m));
    objective_.forward(model_, micro_batches[m], context_of(step));
  }
  PhaseScope sums(Phase::reduce);
  routing_.reduce(*mesh_.world);
}

Tensor TrainingStep::forward_backward(const Batch& batch, int64_t step, double scale, bool last) {
  StepContext context = context_of(step);
  context.recompute_blocks = options_.recompute_blocks;
  if (last) {
    context.gradients_ready = [this](Module& module) {
      PhaseScope phase(Phase::reduce);
      for (ParameterGroup g : kAllGroups) {
        FlatRange range = store_.range_of(module, g);
        reducers_[static_cast<size_t>(g)].ready(range.begin, range.end);
      }
    };
  }
  Tape tape;
  BatchLoss result;
  {
    PhaseScope phase(Phase::forward);
    Recording on(tape);
    result = objective_.loss(model_, batch, scale, context);
  }
  {
    PhaseScope phase(Phase::reduce);
    routing_.end_forward(*mesh_.world);
  }
  PhaseScope phase(Phase::backward);
  tape.backward(result.roots);
  return result.sum;
}

// The step's only read of the device: with the figures, what the routing has counted.
std::vector<double> TrainingStep::read_figures(const Tensor& figures) {
  std::vector<Tensor> parts = routing_.unread();
  parts.insert(parts.begin(), figures);
  std::vector<std::vector<double>> values = read_together(parts);
  routing_.read(std::span(values).subspan(1));
  return values[0];
}

// With the loss go how long each rank has worked and the words of the routing, so that they cost no
// messages of their own.
void TrainingStep::share(double loss_sum, double scale, StepResult& result) {
  auto ranks = static_cast<size_t>(mesh_.world->size());
  std::vector<double> message(1 + ranks);
  message[0] = loss_sum;
  double& busy = message[1 + static_cast<size_t>(mesh_.world->rank())];
  const auto& seconds = PhaseTimer::current().seconds();
  for (Phase phase : {Phase::data, Phase::forward, Phase::gate, Phase::experts, Phase::backward})
    busy += seconds[static_cast<size_t>(phase)];
  const std::vector<double> words = routing_.take_words(*mesh_.world);
  message.insert(message.end(), words.begin(), words.end());
  mesh_.world->sum_in_place(std::span<double>(message));
  result.loss = message[0] * scale;
  std::span<const double> worked = std::span(message).subspan(1, ranks);
  result.busy_mean =
      std::accumulate(worked.begin(), worked.end(), 0.0) / static_cast<double>(ranks);
  result.busy_most = *std::max_element(worked.begin(), worked.end());
  routing_.finish(std::span(message).subspan(1 + ranks));
}

std::vector<GroupBuffer> TrainingStep::buffers(Tensor FlatGroup::*which) const {
  std::vector<GroupBuffer> all;
  for (ParameterGroup g : kAllGroups) all.push_back({store_.group(g).*which, mesh_.group(g)});
  return all;
}

double TrainingStep::parameter_norm() const {
  return norm_over_ranks(buffers(&FlatGroup::master));
}

}  // namespace adagate
