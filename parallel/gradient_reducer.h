// Sums a flat gradient buffer over a group of ranks, bucket by bucket, while backward still runs.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/tensor/tensor.h"
#include "parallel/communicator.h"

namespace adagate {

// Gradients travel in pieces of this many elements, small enough to stay in the cache while they
// are summed (4 MiB of f32).
constexpr int64_t kGradientBucketElements = int64_t{1} << 20;

// Boundaries 0, b, 2b, ..., total: buckets of `bucket_elements`, the last one shorter.
std::vector<int64_t> even_buckets(int64_t total, int64_t bucket_elements);

// Zeros in memory that `ranks` sums fastest, [elements]. Collective.
Tensor allocate_gradient(Communicator& ranks, int64_t elements, DType dtype);

// Backward fills the buffer from its end, roughly; ready() tells which elements are final. A bucket
// is posted as soon as it and all buckets behind it are final, so all ranks post in the same order
// whatever the order of their backward. Sums only: with losses already divided by the global number
// of tokens nothing is left to average. In a group of one every call returns at once.
class GradientReducer {
 public:
  // `flat`, [n], should come from allocate_gradient(). boundaries: increasing, from 0 to n. The
  // communicator must outlive the reducer. Throws Error on bad boundaries.
  GradientReducer(Communicator& communicator, const Tensor& flat, std::vector<int64_t> boundaries);

  // Elements [first, last) hold this rank's final gradient of the step. Each element once per step.
  void ready(int64_t first, int64_t last);
  // Posts what is left, waits for all sums, and starts over. Throws Error if a rank has failed.
  void finish();

 private:
  void post_final_buckets();

  Communicator& communicator_;
  Tensor flat_;
  std::vector<int64_t> boundaries_;
  std::vector<int64_t> missing_;  // per bucket: elements not yet final
  size_t to_post_ = 0;  // buckets [0, to_post_) are still to be posted, the last one first
  std::vector<std::unique_ptr<Request>> requests_;
};

}  // namespace adagate
