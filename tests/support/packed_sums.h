// Routing sums as the kernel writes them.
#pragma once

#include <algorithm>
#include <vector>

#include "core/ops/routing.h"

namespace adagate::test {

// As routing_sums() would return them; lists that are empty are zero.
inline Tensor packed_sums(const RoutingSums& sums, int64_t experts) {
  std::vector<double> flat(static_cast<size_t>(routing_sums_size(experts)));
  auto e = static_cast<size_t>(experts);
  auto put = [&](const std::vector<double>& list, size_t at) {
    std::copy(list.begin(), list.end(), flat.begin() + static_cast<std::ptrdiff_t>(at));
  };
  put(sums.single, 0);
  put(sums.assigned, e);
  put(sums.probability, 2 * e);
  put(sums.by_count, 3 * e);
  put(sums.gap, 4 * e + 1);
  put({sums.tokens, sums.entropy, sums.log_sum_exp_squared}, flat.size() - 3);
  return Tensor::from(std::span<const double>(flat), {routing_sums_size(experts)});
}

}  // namespace adagate::test
