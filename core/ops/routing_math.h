// The choice of experts as functions of one token's scores, shared by CPU and CUDA kernels: near a
// threshold another order of the same arithmetic would decide otherwise.
#pragma once

#include <cstdint>

#include "core/base/hd.h"
#include "core/ops/routing.h"

namespace adagate {

// The k most probable experts of a token, by falling probability, ties to the lower index. `p` is
// indexed like an array of scores, in all of these.
template <class Scores>
ADAGATE_HD void top_experts(Scores p, int64_t experts, int64_t k, int32_t* chosen) {
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
template <class T, class Scores>
ADAGATE_HD int64_t experts_by_gap(Scores p, const int32_t* chosen, int64_t k_max, T threshold,
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

// One token's experts, by its scores of type T, into chosen [rule.k_max]; returns their number.
// `address` is read for random choices only.
template <class T, class Scores>
ADAGATE_HD int64_t select_token(const SelectionRule& rule, Scores scores, int64_t experts,
                                const int64_t* address, int32_t* chosen) {
  top_experts(scores, experts, rule.k_max, chosen);
  switch (rule.kind) {
    case SelectionRule::Kind::fixed:
      break;
    case SelectionRule::Kind::gap:
      return experts_by_gap(scores, chosen, rule.k_max, static_cast<T>(rule.threshold),
                            rule.pair_normalized);
    case SelectionRule::Kind::random_second: {
      double draw = rule.rng.uniform(static_cast<uint64_t>(*address));
      return draw < rule.share ? rule.k_max : 1;
    }
  }
  return rule.k_max;
}

// The bin of kGapEdges that a token falls into whose largest probabilities are `first` and
// `second`, in the arithmetic of the selection.
template <class T>
ADAGATE_HD int64_t gap_bin(T first, T second, bool pair_normalized) {
  constexpr auto kEdges = kGapEdges;  // a GPU's own: the address of the host's is none of its
  T gap = first - second;
  if (pair_normalized) gap /= first + second;
  int64_t bin = 0;
  for (int64_t i = 0; i + 1 < kGapBins; ++i)
    bin += !(gap <= static_cast<T>(kEdges[static_cast<size_t>(i)]));
  return bin;
}

}  // namespace adagate
