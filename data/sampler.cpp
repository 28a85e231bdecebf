#include "data/sampler.h"

#include <algorithm>
#include <numeric>

#include "core/base/error.h"
#include "core/base/rng.h"

namespace adagate {

std::vector<int64_t> shuffled_order(uint64_t seed, int64_t epoch, int64_t size) {
  std::vector<int64_t> order(size);
  std::iota(order.begin(), order.end(), 0);
  Rng rng(seed, RngStream::shuffle, static_cast<uint64_t>(epoch));
  for (int64_t i = size - 1; i > 0; --i) {  // Fisher and Yates
    auto draw = rng.at(static_cast<uint64_t>(i));
    uint64_t bits = static_cast<uint64_t>(draw[0]) << 32 | draw[1];
    // bits * (i + 1) / 2^64: uniform below i + 1 up to a bias of i / 2^64.
    auto other = static_cast<int64_t>(static_cast<unsigned __int128>(bits) * (i + 1) >> 64);
    std::swap(order[i], order[other]);
  }
  return order;
}

Sampler::Sampler(const SamplerConfig& config, int64_t dataset_size, SampleLengths lengths)
    : config_(config), size_(dataset_size), lengths_(std::move(lengths)) {
  const BatchRule& batch = config.batch;
  check(batch.size >= 1, "sampler: a global batch of {}; at least 1 is needed", batch.size);
  check(config.accumulation >= 1, "sampler: {} micro-batches a step; at least 1 is needed",
        config.accumulation);
  check(dataset_size >= 1, "sampler: the data set is empty");
  check(even() || !batch.drop_last,
        "sampler: batches by tokens have no last one that is too small: keep it");
  check(even() || (lengths_ && static_cast<int64_t>(lengths_->size()) == dataset_size),
        "sampler: batches by tokens need the length of each of {} samples", dataset_size);
  check(!batch.drop_last || dataset_size >= batch.size,
        "data.keep_last_batch is false, but data.train has {} samples, no whole batch of {}: lower "
        "train.batch or keep the last one",
        dataset_size, batch.size);
  samples_per_epoch_ = batch.drop_last ? size_ / batch.size * batch.size : size_;
}

int64_t Sampler::steps_in(int64_t epoch_number) const {
  if (even()) return (samples_per_epoch_ + config_.batch.size - 1) / config_.batch.size;
  if (same_order_always() || epoch_.number == epoch_number) return epoch(epoch_number).plan.steps();
  // Planned for its number of steps alone: the epoch at work stays at hand.
  auto [known, is_new] = steps_.try_emplace(epoch_number);
  if (is_new) known->second = make_epoch(epoch_number).plan.steps();
  return known->second;
}

DataPosition Sampler::after(DataPosition position) const {
  ++position.step;
  return position.step < steps_in(position.epoch) ? position : DataPosition{position.epoch + 1, 0};
}

int64_t Sampler::consumed_samples(DataPosition position) const {
  int64_t before = position.epoch * samples_per_epoch_;
  if (even()) return before + position.step * config_.batch.size;
  return before + epoch(position.epoch).plan.first(position.step);
}

DataPosition Sampler::position_at(int64_t consumed_samples) const {
  int64_t number = consumed_samples / samples_per_epoch_;
  int64_t rest = consumed_samples % samples_per_epoch_;
  int64_t step = consumed_samples < 0 ? -1 : epoch(number).plan.step_at(rest);
  check(step >= 0,
        "sampler: no step begins after {} samples of the epoch with a global batch of {}; resume "
        "with the batch size of the saved run",
        rest, config_.batch.size);
  return {number, step};
}

void Sampler::set_order(std::vector<int64_t> order) {
  if (!order.empty()) {
    check(static_cast<int64_t>(order.size()) == size_,
          "sampler: an order of {} samples for a data set of {}", order.size(), size_);
    std::vector<bool> seen(size_, false);
    for (int64_t id : order) {
      check(id >= 0 && id < size_ && !seen[id],
            "sampler: the order names sample {} twice or wrongly", id);
      seen[id] = true;
    }
  }
  order_ = std::move(order);
  epoch_ = {};
}

Sampler::Epoch Sampler::make_epoch(int64_t number) const {
  Epoch epoch{.number = number, .order = order_, .plan = {}};
  if (order_.empty() && config_.shuffle) {
    epoch.order = shuffled_order(config_.seed, number, size_);
  } else if (order_.empty()) {
    epoch.order.resize(size_);
    std::iota(epoch.order.begin(), epoch.order.end(), 0);
  }
  std::span<const int32_t> lengths;
  if (lengths_) lengths = *lengths_;
  epoch.plan = plan_epoch(epoch.order, lengths, config_.batch);
  return epoch;
}

const Sampler::Epoch& Sampler::epoch(int64_t number) const {
  if (same_order_always()) number = 0;
  if (epoch_.number != number) epoch_ = make_epoch(number);
  return epoch_;
}

std::vector<int64_t> Sampler::global_batch(DataPosition position) const {
  bool there = position.epoch >= 0 && position.step >= 0;
  int64_t steps = there ? epoch(position.epoch).plan.steps() : 0;
  check(there && position.step < steps, "sampler: there is no step {} in epoch {}, only {} steps",
        position.step, position.epoch, steps);
  const auto& [number, order, plan] = epoch(position.epoch);
  return {order.begin() + plan.first(position.step), order.begin() + plan.first(position.step + 1)};
}

std::vector<BatchRows> Sampler::micro_batches(DataPosition position, int rank, int ranks) const {
  check(rank >= 0 && rank < ranks, "sampler: rank {} of {}", rank, ranks);
  auto samples = global_batch(position);
  auto total = static_cast<int64_t>(samples.size());
  // Dealt like cards: with samples sorted by length every rank gets long ones and short ones.
  int64_t share = (total - rank + ranks - 1) / ranks;  // rows rank, rank + ranks, ... below total
  share = std::max<int64_t>(share, 0);
  std::vector<BatchRows> batches(config_.accumulation);
  int64_t row = rank;
  for (int64_t m = 0; m < config_.accumulation; ++m) {
    int64_t rows = share / config_.accumulation + (m < share % config_.accumulation);
    for (int64_t i = 0; i < rows; ++i, row += ranks) {
      batches[m].sample_ids.push_back(samples[row]);
      batches[m].places.push_back(row);
    }
  }
  return batches;
}

}  // namespace adagate
