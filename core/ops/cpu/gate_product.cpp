// Logits and softmax of a gate, and the gradients of the product.
//
// Forward: a tile of 8 tokens x one vector of experts in registers, the sum running over the width
// in the same order for every token, so that a token's bits don't depend on its neighbours (a
// library product may sum differently for other row counts; near the threshold that flips
// decisions). Reads x once per 16 experts.
// dx: a chunk of one token's row in registers, the sum over experts. dW: a tile of 16 columns x 8
// experts in registers, summed over blocks of tokens; tasks are tiles, so nothing depends on the
// number of threads.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/ops/gate_types.h"
#include "core/ops/routing.h"

namespace adagate {
namespace {

constexpr int64_t kTileTokens = 8;
constexpr int64_t kBlockTokens = 256;  // tokens summed in registers before adding to the total
constexpr int64_t kSerialWork = 1 << 15;

// One full-width vector of T: 16 floats or 8 doubles.
template <class T>
struct Lanes {
  static constexpr int64_t kCount = 64 / sizeof(T);
  using Vec __attribute__((vector_size(64))) = T;
};

// weight [width, experts] -> [groups][width][lanes], zero beyond experts.
template <class W>
Tensor pack_experts(const W* weight, int64_t width, int64_t experts, int64_t groups) {
  constexpr int64_t kLanes = Lanes<W>::kCount;
  Tensor packed = Tensor::empty({groups, width, kLanes}, dtype_of<W>());
  W* to = packed.data<W>();
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t d = 0; d < width; ++d)
      for (int64_t l = 0; l < kLanes; ++l, ++to) {
        int64_t e = g * kLanes + l;
        *to = e < experts ? weight[d * experts + e] : W(0);
      }
  return packed;
}

template <class X, class W>
void logits_tile(const X* const (&rows)[kTileTokens], const W* packed, int64_t width,
                 W (&out)[kTileTokens][Lanes<W>::kCount]) {
  using Vec = typename Lanes<W>::Vec;
  Vec acc[kTileTokens] = {};
  for (int64_t d = 0; d < width; ++d) {
    Vec w;
    std::memcpy(&w, packed + d * Lanes<W>::kCount, sizeof(w));
#pragma GCC unroll 8
    for (int64_t r = 0; r < kTileTokens; ++r) acc[r] += static_cast<W>(rows[r][d]) * w;
  }
  std::memcpy(out, acc, sizeof(acc));
}

template <class W>
void softmax_row(W* row, int64_t experts, W* log_sum_exp, W* entropy) {
  W largest = row[0];
  for (int64_t e = 1; e < experts; ++e) largest = std::max(largest, row[e]);
  W sum = 0, weighted = 0;  // of exp(l - max), and of that times (l - max)
  for (int64_t e = 0; e < experts; ++e) {
    W shifted = row[e] - largest;
    row[e] = std::exp(shifted);
    sum += row[e];
    weighted += row[e] * shifted;
  }
  for (int64_t e = 0; e < experts; ++e) row[e] /= sum;
  W log_sum = std::log(sum);
  *log_sum_exp = largest + log_sum;
  *entropy = log_sum - weighted / sum;
}

template <class X, class W>
void gate_scores_kernel(const GateScoresArgs& a) {
  constexpr int64_t kLanes = Lanes<W>::kCount;
  const X* x = static_cast<const X*>(a.x);
  W* probabilities = static_cast<W*>(a.probabilities);
  int64_t groups = (a.experts + kLanes - 1) / kLanes;
  Tensor packed = pack_experts(static_cast<const W*>(a.weight), a.width, a.experts, groups);
  int64_t tiles = (a.tokens + kTileTokens - 1) / kTileTokens;
#pragma omp parallel for schedule(static) if (a.tokens * a.width > kSerialWork)
  for (int64_t tile = 0; tile < tiles; ++tile) {
    int64_t first = tile * kTileTokens, last = std::min(a.tokens, first + kTileTokens);
    const X* rows[kTileTokens];  // the last token fills an incomplete tile
    for (int64_t r = 0; r < kTileTokens; ++r) rows[r] = x + std::min(first + r, last - 1) * a.width;
    for (int64_t g = 0; g < groups; ++g) {
      W logits[kTileTokens][kLanes];
      logits_tile<X, W>(rows, packed.data<W>() + g * a.width * kLanes, a.width, logits);
      int64_t begin = g * kLanes, count = std::min(kLanes, a.experts - begin);
      for (int64_t t = first; t < last; ++t)
        std::copy_n(logits[t - first], count, probabilities + t * a.experts + begin);
    }
    for (int64_t t = first; t < last; ++t) {
      softmax_row(probabilities + t * a.experts, a.experts, static_cast<W*>(a.log_sum_exp) + t,
                  static_cast<W*>(a.entropy) + t);
    }
  }
}

template <class X, class W>
void input_gradient(const GateProductBackwardArgs& a) {
  constexpr int64_t kChunk = 4 * Lanes<W>::kCount;
  const W* weight = static_cast<const W*>(a.weight);
  const W* dlogits = static_cast<const W*>(a.dlogits);
  X* dx = static_cast<X*>(a.dx);
  Tensor transposed = Tensor::empty({a.experts, a.width}, a.type);
  W* wt = transposed.data<W>();
  for (int64_t e = 0; e < a.experts; ++e)
    for (int64_t d = 0; d < a.width; ++d) wt[e * a.width + d] = weight[d * a.experts + e];
#pragma omp parallel for schedule(static) if (a.tokens * a.width > kSerialWork)
  for (int64_t t = 0; t < a.tokens; ++t) {
    const W* dl = dlogits + t * a.stride;
    for (int64_t begin = 0; begin < a.width; begin += kChunk) {
      int64_t n = std::min(kChunk, a.width - begin);
      W sum[kChunk] = {};
      for (int64_t e = 0; e < a.experts; ++e) {
        const W* w = wt + e * a.width + begin;
        W factor = dl[e];
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) sum[i] += factor * w[i];
      }
      X* to = dx + t * a.width + begin;
      if (a.accumulate_dx) {
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) to[i] = X(static_cast<W>(to[i]) + sum[i]);
      } else {
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) to[i] = X(sum[i]);
      }
    }
  }
}

// One tile of dW: columns [d0, d0 + lanes), experts [e0, e0 + 8).
template <class X, class W>
void weight_gradient_tile(const GateProductBackwardArgs& a, int64_t d0, int64_t e0) {
  constexpr int64_t kLanes = Lanes<W>::kCount;
  using Vec = typename Lanes<W>::Vec;
  const X* x = static_cast<const X*>(a.x) + d0;
  const W* dlogits = static_cast<const W*>(a.dlogits) + e0;
  int64_t columns = std::min(kLanes, a.width - d0);
  Vec total[kGateExpertTile] = {};
  for (int64_t begin = 0; begin < a.tokens; begin += kBlockTokens) {
    int64_t end = std::min(a.tokens, begin + kBlockTokens);
    Vec acc[kGateExpertTile] = {};
    for (int64_t t = begin; t < end; ++t) {
      W row[kLanes] = {};
      if (columns == kLanes) {
#pragma omp simd
        for (int64_t i = 0; i < kLanes; ++i) row[i] = static_cast<W>(x[t * a.width + i]);
      } else {
        for (int64_t i = 0; i < columns; ++i) row[i] = static_cast<W>(x[t * a.width + i]);
      }
      Vec v;
      std::memcpy(&v, row, sizeof(v));
      const W* dl = dlogits + t * a.stride;
#pragma GCC unroll 8
      for (int64_t e = 0; e < kGateExpertTile; ++e) acc[e] += dl[e] * v;
    }
    for (int64_t e = 0; e < kGateExpertTile; ++e) total[e] += acc[e];
  }
  W* dweight = static_cast<W*>(a.dweight);
  for (int64_t e = 0; e < std::min(kGateExpertTile, a.experts - e0); ++e)
    for (int64_t i = 0; i < columns; ++i) {
      W& to = dweight[(d0 + i) * a.experts + e0 + e];
      to = a.accumulate_dweight ? to + total[e][i] : total[e][i];
    }
}

template <class X, class W>
void weight_gradient(const GateProductBackwardArgs& a) {
  constexpr int64_t kLanes = Lanes<W>::kCount;
  int64_t across = (a.width + kLanes - 1) / kLanes;
  int64_t tiles = across * (a.stride / kGateExpertTile);
#pragma omp parallel for schedule(static) if (a.tokens * a.width > kSerialWork)
  for (int64_t i = 0; i < tiles; ++i) {
    weight_gradient_tile<X, W>(a, i % across * kLanes, i / across * kGateExpertTile);
  }
}

}  // namespace

void launch(CpuStream&, const GateScoresArgs& a) {
  visit_gate(a.x_type, a.type,
             [&](auto x, auto w) { gate_scores_kernel<decltype(x), decltype(w)>(a); });
}

void launch(CpuStream&, const GateProductBackwardArgs& a) {
  visit_gate(a.x_type, a.type, [&](auto x, auto w) {
    if (a.dx) input_gradient<decltype(x), decltype(w)>(a);
    if (a.dweight) weight_gradient<decltype(x), decltype(w)>(a);
  });
}

}  // namespace adagate
