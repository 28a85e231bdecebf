// Which samples a rank sees in which step.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "data/epoch_plan.h"

namespace adagate {

struct SamplerConfig {
  uint64_t seed = 1;
  BatchRule batch = {};
  int64_t accumulation = 1;  // micro-batches of a rank in a step
  bool shuffle = true;       // else in the order of the data set
};

struct DataPosition {
  int64_t epoch = 0;
  int64_t step = 0;  // in the epoch
  bool operator==(const DataPosition&) const = default;
};

// Rows of one micro-batch of one rank.
struct BatchRows {
  std::vector<int64_t> sample_ids;
  std::vector<int64_t> places;  // place in the global batch
};

// Tokens of each sample, by id; shared by the copies of a sampler.
using SampleLengths = std::shared_ptr<const std::vector<int32_t>>;

// A permutation of 0 ... size - 1 drawn from (seed, epoch) alone.
std::vector<int64_t> shuffled_order(uint64_t seed, int64_t epoch, int64_t size);

// A pure function of (config, lengths, explicit order if any, position): the global batch of a step
// is the same for any number of ranks. It never spans two epochs. A value; copies are independent.
// Epochs are planned when they are first asked for, which is remembered: one thread at a time.
class Sampler {
 public:
  // `lengths`: needed for batches by tokens. Throws Error if the data set is empty, smaller than a
  // global batch with drop_last, or a number of the config is not positive.
  Sampler(const SamplerConfig& config, int64_t dataset_size, SampleLengths lengths = nullptr);

  // Steps of an epoch. Batches by tokens fall otherwise in every order, so that epochs differ.
  int64_t steps_in(int64_t epoch) const;
  // Whether all epochs have as many, whatever the order.
  bool even() const { return config_.batch.unit == BatchRule::Unit::samples; }
  int64_t samples_per_epoch() const { return samples_per_epoch_; }
  DataPosition after(DataPosition position) const;
  // Samples seen before the position, over all epochs, and back. Throws Error if no step begins
  // there.
  int64_t consumed_samples(DataPosition position) const;
  DataPosition position_at(int64_t consumed_samples) const;

  // Takes this order for every epoch from now on, in place of the shuffle; empty: the shuffle
  // again. Throws Error unless it is a permutation of 0 ... size - 1.
  void set_order(std::vector<int64_t> order);
  const std::vector<int64_t>& order() const { return order_; }

  std::vector<int64_t> global_batch(DataPosition position) const;
  // Row i of the global batch belongs to rank i % ranks; a rank's rows are dealt in order to its
  // micro-batches, the first ones taking one more where they do not divide. Some may be empty.
  std::vector<BatchRows> micro_batches(DataPosition position, int rank, int ranks) const;

 private:
  // An epoch's order and its steps.
  struct Epoch {
    int64_t number = -1;
    std::vector<int64_t> order;
    EpochPlan plan;
  };
  bool same_order_always() const { return !order_.empty() || !config_.shuffle; }
  Epoch make_epoch(int64_t number) const;
  const Epoch& epoch(int64_t number) const;

  SamplerConfig config_;
  int64_t size_;
  SampleLengths lengths_;
  int64_t samples_per_epoch_ = 0;
  std::vector<int64_t> order_;  // explicit; empty: none
  mutable Epoch epoch_;         // the one asked for last; 0 where all have the same order
  mutable std::map<int64_t, int64_t> steps_;  // of epochs in the shuffle's order
};

}  // namespace adagate
