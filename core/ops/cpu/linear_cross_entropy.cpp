// Softmax cross-entropy: one row per task, so a row of 50,257 f32 logits (200 KB) stays in the
// core's L2 through its three passes: largest, exponentials with their sum, scaling. Memory sees
// one read and one write per element.
#include "core/ops/linear_cross_entropy.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "core/base/vector_math.h"

namespace adagate {
namespace {

constexpr int64_t kBlock = 512;

template <class Z>
Z largest_of(const Z* z, int64_t n) {
  Z largest = z[0];
  // Not std::max: its references keep the loop scalar.
#pragma omp simd reduction(max : largest)
  for (int64_t i = 0; i < n; ++i) largest = z[i] > largest ? z[i] : largest;
  return largest;
}

// Sum of exp(z - largest) by blocks, in double; keeps the exponentials in z if wanted.
template <bool kKeep, class Z>
double sum_of_exponentials(Z* z, int64_t n, Z largest) {
  double sum = 0;
  for (int64_t first = 0; first < n; first += kBlock) {
    int64_t last = std::min(first + kBlock, n);
    Z part = 0;
#pragma omp simd reduction(+ : part)
    for (int64_t i = first; i < last; ++i) {
      Z e = vector_math::exp(z[i] - largest);
      if (kKeep) z[i] = e;
      part += e;
    }
    sum += static_cast<double>(part);
  }
  return sum;
}

template <class Z>
double sum_of(const Z* z, int64_t n) {
  double sum = 0;
  for (int64_t first = 0; first < n; first += kBlock) {
    int64_t last = std::min(first + kBlock, n);
    Z part = 0;
#pragma omp simd reduction(+ : part)
    for (int64_t i = first; i < last; ++i) part += z[i];
    sum += static_cast<double>(part);
  }
  return sum;
}

// gradient = factor * exponentials - even, over them; the target's element is `at_target`.
template <class G, class Z>
void write_gradient(Z* z, int64_t n, Z factor, Z even, int64_t target, Z at_target) {
  auto* bytes = reinterpret_cast<char*>(z);
  for (int64_t first = 0; first < n; first += kBlock) {
    // A G is not wider than a Z, so the bytes written here have been read before.
    int64_t width = std::min(kBlock, n - first);
    G block[kBlock];
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) block[i] = static_cast<G>(z[first + i] * factor - even);
    std::memcpy(bytes + first * static_cast<int64_t>(sizeof(G)), static_cast<const void*>(block),
                static_cast<size_t>(width) * sizeof(G));
  }
  G exact = static_cast<G>(at_target);
  std::memcpy(bytes + target * static_cast<int64_t>(sizeof(G)), &exact, sizeof(G));
}

template <class Z, class G>
void run(const CrossEntropyArgs& p) {
  const auto words = static_cast<double>(p.vocabulary);
#pragma omp parallel for schedule(static) if (p.rows * p.vocabulary > (1 << 12))
  for (int64_t r = 0; r < p.rows; ++r) {
    Z* z = static_cast<Z*>(p.z) + r * p.ld;
    int64_t target = p.targets[r];
    Z at_target = z[target], largest = largest_of(z, p.vocabulary);
    double mean = p.smoothing > 0 ? sum_of(z, p.vocabulary) / words : 0.0;
    double sum = p.gradient ? sum_of_exponentials<true>(z, p.vocabulary, largest)
                            : sum_of_exponentials<false>(z, p.vocabulary, largest);
    p.loss[r] = std::log(sum) + (static_cast<double>(largest) - static_cast<double>(at_target)) +
                p.smoothing * (static_cast<double>(at_target) - mean);
    if (!p.gradient) continue;
    double probability = static_cast<double>(z[target]) / sum;
    double over = probability - 1.0 + p.smoothing * (1 - 1 / words);
    write_gradient<G>(z, p.vocabulary, static_cast<Z>(p.scale / sum),
                      static_cast<Z>(p.scale * p.smoothing / words), target,
                      static_cast<Z>(p.scale * over));
  }
}

}  // namespace

void launch(CpuStream&, const CrossEntropyArgs& p) {
  if (p.z_type == DType::f64) {
    run<double, double>(p);
  } else if (p.gradient_type == DType::bf16) {
    run<float, bfloat16>(p);
  } else {
    run<float, float>(p);
  }
}

void launch(CpuStream&, const LossSumArgs& p) {
  *p.sum = std::accumulate(p.losses, p.losses + p.n, 0.0);
  visit_floating(p.loss_type, [&](auto type) {
    using T = decltype(type);
    *static_cast<T*>(p.loss) = static_cast<T>(p.scale * *p.sum);
  });
}

}  // namespace adagate
