#include "train/batch_tensors.h"

namespace adagate {

Tensor tokens_of(const Batch& batch) {
  return Tensor::from(std::span<const int32_t>(batch.tokens), {batch.rows * batch.sequence});
}

Tensor targets_of(const Batch& batch) {
  return Tensor::from(std::span<const int32_t>(batch.targets), {batch.rows * batch.sequence});
}

TokenRows rows_of(const Batch& batch) {
  TokenRows rows = padded_rows(batch.lengths, batch.sequence);
  set_addresses(rows, batch.row_ids);
  rows.sample_ids = Tensor::from(std::span<const int64_t>(batch.sample_ids), {batch.rows});
  return rows;
}

}  // namespace adagate
