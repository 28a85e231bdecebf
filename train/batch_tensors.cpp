#include "train/batch_tensors.h"

namespace adagate {

Tensor tokens_of(const Batch& batch, Device device) {
  return Tensor::from(std::span<const int32_t>(batch.tokens), {batch.rows * batch.sequence},
                      device);
}

LossTargets targets_of(const Batch& batch, int64_t vocabulary, Device device) {
  return loss_targets(batch.targets, vocabulary, device);
}

TokenRows rows_of(const Batch& batch, Device device) {
  TokenRows rows = padded_rows(batch.lengths, batch.sequence);
  set_addresses(rows, batch.places);
  rows.sample_ids = Tensor::from(std::span<const int64_t>(batch.sample_ids), {batch.rows});
  return rows.to(device);
}

}  // namespace adagate
