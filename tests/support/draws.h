// Random decisions of a program, compared with each other.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace adagate::test {

// Share of `draws` that are true.
inline double share_of(const std::vector<bool>& draws) {
  return static_cast<double>(std::count(draws.begin(), draws.end(), true)) /
         static_cast<double>(draws.size());
}

// Five standard deviations of the share of n draws of probability p.
inline double share_margin(double p, size_t n) {
  return 5 * std::sqrt(p * (1 - p) / static_cast<double>(n));
}

// Whether two lists of draws of probability 1/2 agree as seldom as if they knew nothing of each
// other: half of the time, within five standard deviations.
inline bool independent(const std::vector<bool>& a, const std::vector<bool>& b) {
  size_t n = std::min(a.size(), b.size());
  std::vector<bool> agree(n);
  for (size_t i = 0; i < n; ++i) agree[i] = a[i] == b[i];
  return std::abs(share_of(agree) - 0.5) <= share_margin(0.5, n);
}

}  // namespace adagate::test
