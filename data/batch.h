// A micro-batch: what one forward pass of one rank sees.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "data/dataset.h"

namespace adagate {

// Rows are padded at the end to the longest; padding has token 0 and kIgnoredTarget. A rank that
// has no sample left gets a batch of 0 rows: it still takes part in the exchanges of the others.
struct Batch {
  int64_t rows = 0;
  int64_t sequence = 0;
  std::vector<int32_t> tokens;      // [rows, sequence]
  std::vector<int32_t> targets;     // [rows, sequence]
  std::vector<int32_t> lengths;     // [rows] without padding
  std::vector<int64_t> sample_ids;  // [rows] global ids in the data set
  std::vector<int64_t> places;      // [rows] place in the step's global batch: addresses dropout
  int64_t valid_targets = 0;        // targets that count in the loss
};

// The samples, in the order given, as a batch. Throws Error on a sample whose ids and targets
// differ in number.
Batch make_batch(const Dataset& dataset, std::span<const int64_t> sample_ids,
                 std::span<const int64_t> places);

}  // namespace adagate
