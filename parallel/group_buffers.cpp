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

double norm_over_ranks(std::span<const GroupBuffer> buffers) {
  double squares = 0;
  for (const GroupBuffer& b : buffers) squares += b.ranks.parts->sum(sum_of_squares(b.data));
  return std::sqrt(squares);
}

}  // namespace adagate
