#include "parallel/group_buffers.h"

#include <cmath>

#include "core/ops/adamw_update.h"

namespace adagate {

std::vector<GradientReducer> make_reducers(std::span<const GroupBuffer> gradients) {
  std::vector<GradientReducer> reducers;
  for (const GroupBuffer& g : gradients)
    reducers.emplace_back(*g.ranks.copies, g.data,
                          even_buckets(g.data.numel(), kGradientBucketElements));
  return reducers;
}

void sum_squares(std::span<const GroupBuffer> buffers, const Tensor& squares) {
  int64_t at = 0;
  for (const GroupBuffer& b : buffers) {
    sum_of_squares(b.data, squares.slice(at, at + 1));
    ++at;
  }
}

double norm_from_squares(std::span<const GroupBuffer> buffers, std::span<const double> squares) {
  double sum = 0;
  for (size_t i = 0; i < buffers.size(); ++i) sum += buffers[i].ranks.parts->sum(squares[i]);
  return std::sqrt(sum);
}

double norm_over_ranks(std::span<const GroupBuffer> buffers) {
  if (buffers.empty()) return 0;
  Tensor squares = Tensor::empty({static_cast<int64_t>(buffers.size())}, DType::f64,
                                 buffers.front().data.device());
  sum_squares(buffers, squares);
  return norm_from_squares(buffers, squares.to_host<double>());
}

}  // namespace adagate
