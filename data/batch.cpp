#include "data/batch.h"

#include <algorithm>

#include "core/base/error.h"

namespace adagate {

Batch make_batch(const Dataset& dataset, std::span<const int64_t> sample_ids,
                 std::span<const int64_t> places) {
  check(sample_ids.size() == places.size(), "batch: {} samples and {} rows", sample_ids.size(),
        places.size());
  Batch batch;
  batch.rows = static_cast<int64_t>(sample_ids.size());
  batch.sample_ids.assign(sample_ids.begin(), sample_ids.end());
  batch.places.assign(places.begin(), places.end());
  std::vector<Sample> samples;
  samples.reserve(sample_ids.size());
  for (int64_t id : sample_ids) {
    samples.push_back(dataset.get(id));
    const Sample& sample = samples.back();
    check(sample.ids.size() == sample.targets.size(), "sample {}: {} tokens and {} targets", id,
          sample.ids.size(), sample.targets.size());
    batch.lengths.push_back(static_cast<int32_t>(sample.ids.size()));
    batch.sequence = std::max<int64_t>(batch.sequence, batch.lengths.back());
  }
  batch.tokens.assign(batch.rows * batch.sequence, 0);
  batch.targets.assign(batch.rows * batch.sequence, kIgnoredTarget);
  for (int64_t row = 0; row < batch.rows; ++row) {
    const Sample& sample = samples[row];
    std::copy(sample.ids.begin(), sample.ids.end(), batch.tokens.begin() + row * batch.sequence);
    std::copy(sample.targets.begin(), sample.targets.end(),
              batch.targets.begin() + row * batch.sequence);
    for (int32_t target : sample.targets) batch.valid_targets += target != kIgnoredTarget;
  }
  return batch;
}

}  // namespace adagate
