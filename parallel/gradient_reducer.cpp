#include "parallel/gradient_reducer.h"

#include <algorithm>

#include "core/base/error.h"

namespace adagate {

std::vector<int64_t> even_buckets(int64_t total, int64_t bucket_elements) {
  check(bucket_elements > 0, "a gradient bucket of {} elements", bucket_elements);
  std::vector<int64_t> boundaries;
  for (int64_t at = 0; at < total; at += bucket_elements) boundaries.push_back(at);
  if (boundaries.empty()) boundaries.push_back(0);
  boundaries.push_back(total);
  return boundaries;
}

Tensor allocate_gradient(Communicator& ranks, int64_t elements, DType dtype) {
  size_t bytes = static_cast<size_t>(elements) * size_of(dtype);
  auto memory = ranks.allocate(bytes);
  void* address = memory.get();
  auto storage = Storage::wrap(address, bytes, {}, std::move(memory));
  return Tensor::from_storage(std::move(storage), 0, {elements}, dtype);
}

GradientReducer::GradientReducer(Communicator& communicator, const Tensor& flat,
                                 std::vector<int64_t> boundaries)
    : communicator_(communicator.on(flat.device(), "gradient sums")),
      flat_(flat.detach()),
      boundaries_(std::move(boundaries)) {
  check(boundaries_.size() >= 2 && boundaries_.front() == 0 && boundaries_.back() == flat.numel() &&
            std::is_sorted(boundaries_.begin(), boundaries_.end()),
        "gradient buckets must cover elements 0 to {} in increasing order", flat.numel());
  missing_.resize(boundaries_.size() - 1);
  for (size_t b = 0; b < missing_.size(); ++b) missing_[b] = boundaries_[b + 1] - boundaries_[b];
  to_post_ = missing_.size();
}

void GradientReducer::ready(int64_t first, int64_t last) {
  if (communicator_.size() == 1 || first == last) return;
  check(0 <= first && first < last && last <= boundaries_.back(),
        "gradient elements {} to {} of {} cannot be ready", first, last, boundaries_.back());
  auto it = std::upper_bound(boundaries_.begin(), boundaries_.end(), first);
  for (auto b = static_cast<size_t>(it - boundaries_.begin()) - 1;
       b < missing_.size() && boundaries_[b] < last; ++b) {
    int64_t part = std::min(last, boundaries_[b + 1]) - std::max(first, boundaries_[b]);
    check(part <= missing_[b], "gradient elements {} to {} became ready twice in a step", first,
          last);
    missing_[b] -= part;
  }
  post_final_buckets();
  // A look at a sum lets this rank do its share of what the others have posted.
  if (!requests_.empty()) requests_.back()->test();
}

void GradientReducer::post_final_buckets() {
  for (; to_post_ > 0 && missing_[to_post_ - 1] == 0; --to_post_) {
    size_t b = to_post_ - 1;
    int64_t count = boundaries_[b + 1] - boundaries_[b];
    if (count == 0) continue;
    void* data = flat_.slice(boundaries_[b], boundaries_[b + 1]).raw();
    requests_.push_back(communicator_.all_reduce_async(data, count, flat_.dtype(), ReduceOp::sum));
  }
}

void GradientReducer::finish() {
  if (communicator_.size() == 1) return;
  std::fill(missing_.begin(), missing_.end(), 0);
  post_final_buckets();
  for (auto& request : requests_) request->wait();
  requests_.clear();
  for (size_t b = 0; b < missing_.size(); ++b) missing_[b] = boundaries_[b + 1] - boundaries_[b];
  to_post_ = missing_.size();
}

}  // namespace adagate
