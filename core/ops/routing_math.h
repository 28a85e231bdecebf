// The choice of experts as functions of one token's scores, shared by CPU and CUDA kernels: near a
// threshold another order of the same arithmetic would decide otherwise.
#pragma once

#include <cstdint>

#include "core/base/hd.h"

namespace adagate {

// The k most probable experts of a token, by falling probability, ties to the lower index.
template <class T>
ADAGATE_HD void top_experts(const T* p, int64_t experts, int64_t k, int32_t* chosen) {
  int64_t found = 0;
  for (int64_t e = 0; e < experts; ++e) {
    if (found == k && !(p[e] > p[chosen[k - 1]])) continue;
    int64_t place = found < k ? found++ : k - 1;
    for (; place > 0 && p[e] > p[chosen[place - 1]]; --place) chosen[place] = chosen[place - 1];
    chosen[place] = static_cast<int32_t>(e);
  }
}

// How many of a token's `chosen` experts it takes: expert r joins while R_1 - R_r <= threshold
// (method: R_i - R_j <= T), or with `pair_normalized` while (R_1 - R_r) / (R_1 + R_r) is.
template <class T>
ADAGATE_HD int64_t experts_by_gap(const T* p, const int32_t* chosen, int64_t k_max, T threshold,
                                  bool pair_normalized) {
  T first = p[chosen[0]];
  int64_t count = 1;
  for (; count < k_max; ++count) {
    T next = p[chosen[count]];
    T gap = first - next;
    if (pair_normalized) gap /= first + next;
    if (!(gap <= threshold)) break;
  }
  return count;
}

}  // namespace adagate
