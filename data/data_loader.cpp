#include "data/data_loader.h"

#include <algorithm>
#include <numeric>

#include "core/base/error.h"

namespace adagate {
namespace {

// Null where samples are counted, not their tokens.
SampleLengths lengths_of(const Dataset& dataset, const BatchRule& batch) {
  if (batch.unit != BatchRule::Unit::tokens) return nullptr;
  auto lengths = std::make_shared<std::vector<int32_t>>(static_cast<size_t>(dataset.size()));
  for (int64_t id = 0; id < dataset.size(); ++id)
    (*lengths)[static_cast<size_t>(id)] = static_cast<int32_t>(dataset.length(id));
  return lengths;
}

}  // namespace

DataLoader::DataLoader(const Dataset& dataset, const SamplerConfig& config, int rank, int ranks,
                       int prefetch)
    : dataset_(dataset),
      config_(config),
      rank_(rank),
      ranks_(ranks),
      prefetch_(prefetch),
      lengths_(lengths_of(dataset, config.batch)),
      sampler_(config, dataset.size(), lengths_) {
  check(rank >= 0 && rank < ranks, "data loader: rank {} of {}", rank, ranks);
  restart();
}

// The producer has its own sampler and position, so the two threads share nothing but the queue.
void DataLoader::restart() {
  // The old producer is ended first: what it has made ahead belongs to the old position.
  prefetcher_.reset();
  auto make = [&dataset = dataset_, sampler = sampler_, position = position_, rank = rank_,
               ranks = ranks_]() mutable {
    StepBatches batches;
    for (const BatchRows& rows : sampler.micro_batches(position, rank, ranks))
      batches.push_back(make_batch(dataset, rows.sample_ids, rows.places));
    position = sampler.after(position);
    return batches;
  };
  prefetcher_ = std::make_unique<Prefetcher>(std::move(make), prefetch_);
}

StepBatches DataLoader::next_step() {
  StepBatches batches = prefetcher_->next();
  DataPosition next = sampler_.after(position_);
  if (next.epoch > position_.epoch && !even_epochs()) epoch_steps_.push_back(position_.step + 1);
  position_ = next;
  return batches;
}

int64_t DataLoader::steps_in(int64_t epoch) const {
  bool finished = epoch < static_cast<int64_t>(epoch_steps_.size());
  return finished ? epoch_steps_[static_cast<size_t>(epoch)] : sampler_.steps_in(epoch);
}

int64_t DataLoader::tokens_per_epoch() const {
  check(lengths_ != nullptr, "data loader: tokens are not counted");
  return std::accumulate(lengths_->begin(), lengths_->end(), int64_t{0});
}

DataState DataLoader::state() const {
  return {.position = position_,
          .order = sampler_.order(),
          .epoch_steps = epoch_steps_,
          .seed = config_.seed,
          .dataset_size = dataset_.size(),
          .batch = config_.batch};
}

void DataLoader::restore(const DataState& state) {
  check(state.dataset_size == dataset_.size(),
        "data.train has {} samples, but the saved run's had {}: resume on the same data with the "
        "same model.context and data.validation_share",
        dataset_.size(), state.dataset_size);
  bool by_samples = even_epochs() && state.batch.unit == config_.batch.unit;
  check(!by_samples || state.batch.size == config_.batch.size,
        "train.batch is {}, but the saved run's was {}: resume with the same", config_.batch.size,
        state.batch.size);
  check(by_samples ||
            (state.batch.unit == config_.batch.unit && state.batch.size == config_.batch.size),
        "batches are of {}, but the saved run's of {}: resume with the same",
        text_of(config_.batch), text_of(state.batch));
  check(state.seed == config_.seed, "seed {}, but the saved run's was {}: resume with the same",
        config_.seed, state.seed);
  // The order first: how many steps the epoch has may follow from it.
  sampler_.set_order(state.order);
  const auto& [epoch, step] = state.position;
  int64_t steps = epoch >= 0 ? sampler_.steps_in(epoch) : 0;
  check(step >= 0 && step < steps,
        "resume: the saved run stood at step {} of epoch {}, yet an epoch has {} steps; resume "
        "with the same data.keep_last_batch",
        step, epoch, steps);
  check(even_epochs() || static_cast<int64_t>(state.epoch_steps.size()) == epoch,
        "resume: the saved run stood in epoch {}, but tells the steps of {} epochs before", epoch,
        state.epoch_steps.size());
  position_ = state.position;
  epoch_steps_ = state.epoch_steps;
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
