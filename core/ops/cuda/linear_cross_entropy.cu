// Softmax cross-entropy: a block a row. The first pass finds the largest logit and the sum of the
// exponentials at once: each thread rescales its own sum when its largest grows. The second pass,
// which mostly finds the row in the L2 cache, writes the gradient over the logits.
#include <limits>

#include "core/ops/cuda/chunk_sums.h"
#include "core/ops/cuda/elements.h"
#include "core/ops/cuda/reduce.h"
#include "core/ops/linear_cross_entropy.h"

namespace adagate {
namespace {

using namespace cuda;

// What is known of a row after the first pass.
template <class Z>
struct RowSums {
  Z largest;
  double exponentials;  // of z - largest
  double logits;
};

template <class Z, int kWidth>
__device__ inline RowSums<Z> sums_of_row(const Z* z, int n, bool smoothed) {
  ADAGATE_SHARED(Z, maxima, kWarp);
  ADAGATE_SHARED(double, shared, kWarp);
  Z largest = std::numeric_limits<Z>::lowest(), sum = 0, logits = 0;
#pragma unroll 2
  for (int i = static_cast<int>(threadIdx.x) * kWidth; i < n;
       i += static_cast<int>(blockDim.x) * kWidth) {
    Z values[kWidth];
    load_some(values, z + i, n - i);
    Z next = largest;
#pragma unroll
    for (int k = 0; k < kWidth; ++k)
      if (i + k < n) next = values[k] > next ? values[k] : next;
    sum *= std::exp(largest - next);
    largest = next;
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      if (i + k < n) sum += std::exp(values[k] - largest);
      if (smoothed) logits += values[k];
    }
  }
  const Z all = block_reduce(largest, std::numeric_limits<Z>::lowest(), maxima, Max{});
  const double share = static_cast<double>(sum) * static_cast<double>(std::exp(largest - all));
  RowSums<Z> row{all, block_sum(share, shared), 0};
  if (smoothed) row.logits = block_sum(static_cast<double>(logits), shared);
  return row;
}

// gradient = factor * exp(z - largest) - even, over z; the target's element is `at_target`. A
// gradient narrower than z overwrites logits to the left of its own. So a tile is written when the
// block has read it and the next one, which lie at or to the right of what is overwritten.
template <class Z, class G, int kWidth>
__device__ inline void write_gradient(Z* z, int n, Z largest, Z factor, Z even, int target,
                                      Z at_target) {
  G* gradient = reinterpret_cast<G*>(z);
  const int step = static_cast<int>(blockDim.x) * kWidth;
  int i = static_cast<int>(threadIdx.x) * kWidth;
  Z values[kWidth];
  if (i < n) load_some(values, z + i, n - i);
  for (int begin = 0; begin < n; begin += step, i += step) {
    Z next[kWidth] = {};
    if (i + step < n) load_some(next, z + i + step, n - i - step);
    if constexpr (sizeof(G) < sizeof(Z)) __syncthreads();
    if (i < n) {
#pragma unroll
      for (int k = 0; k < kWidth; ++k) {
        values[k] = std::exp(values[k] - largest) * factor - even;
        if (i + k == target) values[k] = at_target;
      }
      store_some(gradient + i, values, n - i);
    }
#pragma unroll
    for (int k = 0; k < kWidth; ++k) values[k] = next[k];
  }
}

template <class Z, class G, int kWidth, int kThreads>
__global__ void __launch_bounds__(kThreads) cross_entropy(CrossEntropyArgs p) {
  const int64_t row = blockIdx.x;
  const int n = static_cast<int>(p.vocabulary), target = p.targets[row];
  const auto words = static_cast<double>(n);
  Z* z = static_cast<Z*>(p.z) + row * p.ld;
  const Z at_target = z[target];
  const RowSums<Z> sums = sums_of_row<Z, kWidth>(z, n, p.smoothing > 0);
  if (threadIdx.x == 0) {
    const double mean = sums.logits / words;
    p.loss[row] = std::log(sums.exponentials) +
                  (static_cast<double>(sums.largest) - static_cast<double>(at_target)) +
                  p.smoothing * (static_cast<double>(at_target) - mean);
  }
  if (!p.gradient) return;
  const double probability =
      static_cast<double>(std::exp(at_target - sums.largest)) / sums.exponentials;
  const double over = probability - 1.0 + p.smoothing * (1 - 1 / words);
  write_gradient<Z, G, kWidth>(z, n, sums.largest, static_cast<Z>(p.scale / sums.exponentials),
                               static_cast<Z>(p.scale * p.smoothing / words), target,
                               static_cast<Z>(p.scale * over));
}

template <class Z, class G, int kWidth>
void run(CudaStream& stream, const CrossEntropyArgs& p) {
  const auto rows = static_cast<unsigned>(p.rows);
  if (p.vocabulary <= 2048) {
    ADAGATE_LAUNCH((cross_entropy<Z, G, kWidth, 128>), rows, 128, 0, stream, p);
  } else {
    ADAGATE_LAUNCH((cross_entropy<Z, G, kWidth, 1024>), rows, 1024, 0, stream, p);
  }
}

// The width is that of 16 bytes of gradient.
template <class Z, class G>
void visit_run(CudaStream& stream, const CrossEntropyArgs& p) {
  visit_width<G>(packs(p.ld, sizeof(Z), p.z),
                 [&](auto width) { run<Z, G, decltype(width)::value>(stream, p); });
}

}  // namespace

void launch(CudaStream& stream, const CrossEntropyArgs& p) {
  if (p.rows == 0) return;
  if (p.z_type == DType::f64) {
    visit_run<double, double>(stream, p);
  } else if (p.gradient_type == DType::bf16) {
    visit_run<float, bfloat16>(stream, p);
  } else {
    visit_run<float, float>(stream, p);
  }
}

void launch(CudaStream& stream, const LossSumArgs& p) {
  sum_values(stream, p.losses, DType::f64, p.n, false,
             {.sum = p.sum, .scaled = p.loss, .scaled_type = p.loss_type, .scale = p.scale});
}

}  // namespace adagate
