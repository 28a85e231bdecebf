// Which samples a rank sees in which step.
#pragma once

#include <cstdint>
#include <vector>

namespace adagate {

struct SamplerConfig {
  uint64_t seed = 1;
  int64_t global_batch = 8;  // samples of one optimizer step, over all ranks and micro-batches
  int64_t accumulation = 1;  // micro-batches of a rank in a step
  bool shuffle = true;       // else in the order of the data set
  bool drop_last = false;    // leave out an epoch's last, smaller global batch
};

struct DataPosition {
  int64_t epoch = 0;
  int64_t step = 0;  // in the epoch
  bool operator==(const DataPosition&) const = default;
};

// Rows of one micro-batch of one rank.
struct BatchRows {
  std::vector<int64_t> sample_ids;
  std::vector<int64_t> row_ids;  // place in the global batch
};

// A permutation of 0 ... size - 1 drawn from (seed, epoch) alone.
std::vector<int64_t> shuffled_order(uint64_t seed, int64_t epoch, int64_t size);

// A pure function of (config, explicit order if any, position): the global batch of a step is the
// same for any number of ranks. It never spans two epochs. A value; copies are independent.
class Sampler {
 public:
  // Throws Error if the data set is empty, smaller than a global batch with drop_last, or a number
  // of the config is not positive.
  Sampler(const SamplerConfig& config, int64_t dataset_size);

  int64_t steps_per_epoch() const { return steps_per_epoch_; }
  int64_t samples_per_epoch() const;
  DataPosition after(DataPosition position) const;
  // Samples seen before the position, over all epochs, and back. Throws Error if no step begins
  // there.
  int64_t consumed_samples(DataPosition position) const;
  DataPosition position_at(int64_t consumed_samples) const;

  // Takes this order for every epoch from now on, in place of the shuffle; empty: the shuffle
  // again. Throws Error unless it is a permutation of 0 ... size - 1.
  void set_order(std::vector<int64_t> order);
  const std::vector<int64_t>& order() const { return order_; }

  std::vector<int64_t> global_batch(DataPosition position);
  // Row i of the global batch belongs to rank i % ranks; a rank's rows are dealt in order to its
  // micro-batches, the first ones taking one more where they do not divide. Some may be empty.
  std::vector<BatchRows> micro_batches(DataPosition position, int rank, int ranks);

 private:
  const std::vector<int64_t>& epoch_order(int64_t epoch);
  SamplerConfig config_;
  int64_t size_;
  int64_t steps_per_epoch_ = 0;
  std::vector<int64_t> order_;  // explicit; empty: none
  int64_t cached_epoch_ = -1;
  std::vector<int64_t> cached_order_;  // of cached_epoch_
};

}  // namespace adagate
