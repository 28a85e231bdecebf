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

Sampler::Sampler(const SamplerConfig& config, int64_t dataset_size)
    : config_(config), size_(dataset_size) {
  check(config.global_batch >= 1, "sampler: a global batch of {} samples; at least 1 is needed",
        config.global_batch);
  check(config.accumulation >= 1, "sampler: {} micro-batches a step; at least 1 is needed",
        config.accumulation);
  check(dataset_size >= 1, "sampler: the data set is empty");
  check(!config.drop_last || dataset_size >= config.global_batch,
        "data.keep_last_batch is false, but data.train has {} samples, no whole batch of {}: lower "
        "train.batch or keep the last one",
        dataset_size, config.global_batch);
  int64_t full = dataset_size / config.global_batch;
  steps_per_epoch_ = full + (!config.drop_last && dataset_size % config.global_batch != 0);
}

int64_t Sampler::samples_per_epoch() const {
  return std::min(size_, steps_per_epoch_ * config_.global_batch);
}

DataPosition Sampler::after(DataPosition position) const {
  ++position.step;
  return position.step < steps_per_epoch_ ? position : DataPosition{position.epoch + 1, 0};
}

int64_t Sampler::consumed_samples(DataPosition position) const {
  return position.epoch * samples_per_epoch() + position.step * config_.global_batch;
}

DataPosition Sampler::position_at(int64_t consumed_samples) const {
  int64_t epoch = consumed_samples / samples_per_epoch();
  int64_t rest = consumed_samples % samples_per_epoch();
  check(consumed_samples >= 0 && rest % config_.global_batch == 0,
        "sampler: no step begins after {} samples of the epoch with a global batch of {}; resume "
        "with "
        "the batch size of the saved run",
        rest, config_.global_batch);
  return {epoch, rest / config_.global_batch};
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
  cached_epoch_ = -1;
}

const std::vector<int64_t>& Sampler::epoch_order(int64_t epoch) {
  if (!order_.empty()) return order_;
  if (cached_epoch_ != epoch) {
    if (config_.shuffle) {
      cached_order_ = shuffled_order(config_.seed, epoch, size_);
    } else {
      cached_order_.resize(size_);
      std::iota(cached_order_.begin(), cached_order_.end(), 0);
    }
    cached_epoch_ = epoch;
  }
  return cached_order_;
}

std::vector<int64_t> Sampler::global_batch(DataPosition position) {
  check(position.epoch >= 0 && position.step >= 0 && position.step < steps_per_epoch_,
        "sampler: there is no step {} in epoch {}, only {} steps", position.step, position.epoch,
        steps_per_epoch_);
  const auto& order = epoch_order(position.epoch);
  int64_t first = position.step * config_.global_batch;
  int64_t last = std::min(first + config_.global_batch, size_);
  return {order.begin() + first, order.begin() + last};
}

std::vector<BatchRows> Sampler::micro_batches(DataPosition position, int rank, int ranks) {
  check(rank >= 0 && rank < ranks, "sampler: rank {} of {}", rank, ranks);
  auto samples = global_batch(position);
  auto total = static_cast<int64_t>(samples.size());
  int64_t share = (total - rank + ranks - 1) / ranks;  // rows rank, rank + ranks, ... below total
  share = std::max<int64_t>(share, 0);
  std::vector<BatchRows> batches(config_.accumulation);
  int64_t row = rank;
  for (int64_t m = 0; m < config_.accumulation; ++m) {
    int64_t rows = share / config_.accumulation + (m < share % config_.accumulation);
    for (int64_t i = 0; i < rows; ++i, row += ranks) {
      batches[m].sample_ids.push_back(samples[row]);
      batches[m].row_ids.push_back(row);
    }
  }
  return batches;
}

}  // namespace adagate
