#include "data/data_loader.h"

#include <algorithm>

#include "core/base/error.h"

namespace adagate {

DataLoader::DataLoader(const Dataset& dataset, const SamplerConfig& config, int rank, int ranks,
                       int prefetch)
    : dataset_(dataset),
      config_(config),
      rank_(rank),
      ranks_(ranks),
      prefetch_(prefetch),
      sampler_(config, dataset.size()) {
  check(rank >= 0 && rank < ranks, "data loader: rank {} of {}", rank, ranks);
  restart();
}

// The producer has its own sampler and position, so the two threads share nothing but the queue.
void DataLoader::restart() {
  prefetcher_.reset();
  auto make = [&dataset = dataset_, sampler = sampler_, position = position_, rank = rank_,
               ranks = ranks_]() mutable {
    StepBatches batches;
    for (const BatchRows& rows : sampler.micro_batches(position, rank, ranks))
      batches.push_back(make_batch(dataset, rows.sample_ids, rows.row_ids));
    position = sampler.after(position);
    return batches;
  };
  prefetcher_ = std::make_unique<Prefetcher>(std::move(make), prefetch_);
}

StepBatches DataLoader::next_step() {
  StepBatches batches = prefetcher_->next();
  position_ = sampler_.after(position_);
  return batches;
}

DataState DataLoader::state() const {
  return {position_, sampler_.order(), config_.seed, dataset_.size(), config_.global_batch};
}

void DataLoader::restore(const DataState& state) {
  check(state.dataset_size == dataset_.size(),
        "data.train has {} samples, but the saved run's had {}: resume on the same data with the "
        "same model.context and data.validation_share",
        dataset_.size(), state.dataset_size);
  check(state.global_batch == config_.global_batch,
        "train.batch is {}, but the saved run's was {}: resume with the same", config_.global_batch,
        state.global_batch);
  check(state.seed == config_.seed, "seed {}, but the saved run's was {}: resume with the same",
        config_.seed, state.seed);
  check(
      state.position.epoch >= 0 && state.position.step >= 0 &&
          state.position.step < sampler_.steps_per_epoch(),
      "resume: the saved run stood at step {} of epoch {}, yet an epoch has {} steps; resume with "
      "the same data.keep_last_batch",
      state.position.step, state.position.epoch, sampler_.steps_per_epoch());
  sampler_.set_order(state.order);
  position_ = state.position;
  restart();
}

void DataLoader::set_order(std::vector<int64_t> order) {
  check(position_.step == 0, "data loader: the order can change between epochs, not before step {}",
        position_.step);
  if (order == sampler_.order()) return;  // batches that are made already are the right ones
  sampler_.set_order(std::move(order));
  restart();
}

EvaluationPass::EvaluationPass(const Dataset& dataset, int64_t rows, int rank, int ranks,
                               int64_t limit)
    : dataset_(dataset), rows_(rows), rank_(rank), ranks_(ranks) {
  check(rows >= 1, "evaluation: batches of {} samples; at least 1 is needed", rows);
  check(rank >= 0 && rank < ranks, "evaluation: rank {} of {}", rank, ranks);
  size_ = limit < 0 ? dataset.size() : std::min(limit, dataset.size());
  check(size_ >= 1, "evaluation: there are no samples");
  int64_t samples = rows_ * ranks_;  // of one batch of all ranks
  batches_ = (size_ + samples - 1) / samples;
}

// floor((row + 1/2) n / k) for k of n samples, without a product of the two, which could overflow.
int64_t EvaluationPass::sample(int64_t row) const {
  int64_t stride = dataset_.size() / size_, rest = dataset_.size() % size_;
  int64_t halves = 2 * row + 1;
  return (halves * stride + halves * rest / size_) / 2;
}

Batch EvaluationPass::batch(int64_t index) const {
  check(index >= 0 && index < batches_, "evaluation: there is no batch {} of {}", index, batches_);
  int64_t first = index * rows_ * ranks_;
  std::vector<int64_t> samples;
  for (int64_t row = rank_; row < rows_ * ranks_ && first + row < size_; row += ranks_) {
    samples.push_back(sample(first + row));
  }
  return make_batch(dataset_, samples, samples);
}

}  // namespace adagate
