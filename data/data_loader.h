// What the trainer draws its batches from.
#pragma once

#include <memory>

#include "data/batch.h"
#include "data/prefetch.h"
#include "data/sampler.h"

namespace adagate {

// All that is needed to go on exactly where a run stopped, on any number of ranks.
struct DataState {
  DataPosition position;       // of the step to come
  std::vector<int64_t> order;  // explicit order in use; empty: the seeded shuffle
  // Steps that each finished epoch took; empty where all have as many.
  std::vector<int64_t> epoch_steps = {};
  // What the saved run was configured with; a resume under another is refused.
  uint64_t seed = 0;
  int64_t dataset_size = 0;
  BatchRule batch = {};
};

// Endless steps, epoch after epoch, of this rank's share. The data set must outlive the loader.
class DataLoader {
 public:
  DataLoader(const Dataset& dataset, const SamplerConfig& config, int rank, int ranks,
             int prefetch = 2);

  // The rank's micro-batches of the next step: always config.accumulation, some maybe of 0 rows.
  StepBatches next_step();

  DataPosition position() const { return position_; }  // of the step to come
  // Steps that an epoch took, or will take in the order that is known for it now.
  int64_t steps_in(int64_t epoch) const;
  // Whether all epochs have as many.
  bool even_epochs() const { return sampler_.even(); }
  int64_t tokens_per_epoch() const;  // with batches by tokens
  int64_t consumed_samples() const { return sampler_.consumed_samples(position_); }

  DataState state() const;
  // Throws Error naming what differs if the state is of another data set or configuration.
  void restore(const DataState& state);
  // The order of this and all later epochs, on every rank the same; empty: the seeded shuffle.
  // Throws Error in the middle of an epoch, or if it is no permutation of the data set.
  void set_order(std::vector<int64_t> order);

 private:
  void restart();
  const Dataset& dataset_;
  SamplerConfig config_;
  int rank_, ranks_, prefetch_;
  SampleLengths lengths_;
  Sampler sampler_;
  DataPosition position_;
  std::vector<int64_t> epoch_steps_;  // of finished epochs, where they differ
  std::unique_ptr<Prefetcher> prefetcher_;
};

// One pass over a data set in order, for evaluation: row i of it goes to rank i % ranks. All ranks
// have the same number of batches, of up to `rows` samples, the last ones maybe of 0 rows.
class EvaluationPass {
 public:
  // `limit`: only so many samples, spread evenly over the data set (a text's beginning is not like
  // the rest of it): of as many equal stretches each one's middle, whatever the ranks; negative:
  // all.
  EvaluationPass(const Dataset& dataset, int64_t rows, int rank, int ranks, int64_t limit = -1);
  int64_t batches() const { return batches_; }
  const Dataset& dataset() const { return dataset_; }
  Batch batch(int64_t index) const;

 private:
  int64_t sample(int64_t row) const;  // of row `row` of the pass

  const Dataset& dataset_;
  int64_t rows_, rank_, ranks_, size_, batches_;
};

}  // namespace adagate
