// Choice of experts, weights, their gradient, and sums over a batch. One token's scores at a time:
// a few dozen numbers, read once. Sums run over fixed blocks of tokens, so that they don't depend
// on the number of threads.
#include "core/ops/routing.h"

#include <algorithm>

#include "core/ops/gate_types.h"
#include "core/ops/routing_math.h"

namespace adagate {
namespace {

constexpr int64_t kSumBlock = 256;  // tokens per partial sum
constexpr int64_t kSerialTokens = 512;

template <class T>
void select_kernel(const SelectExpertsArgs& a) {
  const T* probabilities = static_cast<const T*>(a.probabilities);
#pragma omp parallel if (a.tokens > kSerialTokens)
  {
    std::vector<T> biased(static_cast<size_t>(a.bias ? a.experts : 0));
#pragma omp for schedule(static)
    for (int64_t t = 0; t < a.tokens; ++t) {
      int64_t count = 0;
      if (!a.mask || a.mask[t]) {
        const T* scores = probabilities + t * a.experts;
        if (a.bias) {
          for (int64_t e = 0; e < a.experts; ++e)
            biased[static_cast<size_t>(e)] = scores[e] + static_cast<T>(a.bias[e]);
          scores = biased.data();
        }
        count = select_token<T>(a.rule, scores, a.experts, a.addresses ? a.addresses + t : nullptr,
                                a.chosen + t * a.rule.k_max);
      }
      a.row_start[t + 1] = static_cast<int32_t>(count);
    }
  }
  a.row_start[0] = 0;
  std::fill_n(a.counts, a.experts, int64_t{0});
  for (int64_t t = 0; t < a.tokens; ++t) {
    const int32_t* chosen = a.chosen + t * a.rule.k_max;
    for (int32_t i = 0; i < a.row_start[t + 1]; ++i) ++a.counts[chosen[i]];
    a.row_start[t + 1] += a.row_start[t];
  }
}

template <class T>
void weights_kernel(const RoutingWeightsArgs& a) {
  const T* probabilities = static_cast<const T*>(a.probabilities);
  T* weight = static_cast<T*>(a.weight);
#pragma omp parallel for schedule(static) if (a.tokens > kSerialTokens)
  for (int64_t t = 0; t < a.tokens; ++t) {
    const T* p = probabilities + t * a.experts;
    int32_t begin = a.row_start[t], end = a.row_start[t + 1];
    T sum = 0;
    for (int32_t i = begin; i < end; ++i) sum += weight[i] = p[a.expert[i]];
    if (!a.renormalize) continue;
    for (int32_t i = begin; i < end; ++i) weight[i] /= sum;
  }
}

// dp of the weights of one token, added to dp[experts].
template <class T>
void add_weight_gradient(const RoutingBackwardArgs& a, const T* p, int64_t t, T* dp) {
  const T* dweight = static_cast<const T*>(a.dweight);
  int32_t begin = a.row_start[t], end = a.row_start[t + 1];
  if (!a.renormalize) {
    for (int32_t i = begin; i < end; ++i) dp[a.expert[i]] += dweight[i];
    return;
  }
  // w_i = p_i / s: dp_i = (dw_i - sum_j w_j dw_j) / s
  T sum = 0, mean = 0;
  for (int32_t i = begin; i < end; ++i) sum += p[a.expert[i]];
  for (int32_t i = begin; i < end; ++i) mean += p[a.expert[i]] / sum * dweight[i];
  for (int32_t i = begin; i < end; ++i) dp[a.expert[i]] += (dweight[i] - mean) / sum;
}

template <class T>
void backward_kernel(const RoutingBackwardArgs& a) {
  const T* probabilities = static_cast<const T*>(a.probabilities);
  const T* log_sum_exp = static_cast<const T*>(a.log_sum_exp);
  const T lse_squared_gradient = a.loss_gradient ? static_cast<T>(a.loss_gradient[a.experts]) : 0;
#pragma omp parallel for schedule(static) if (a.tokens > kSerialTokens)
  for (int64_t t = 0; t < a.tokens; ++t) {
    T* d = static_cast<T*>(a.dlogits) + t * a.stride;
    std::fill_n(d, a.stride, T(0));
    if (a.mask && !a.mask[t]) continue;
    const T* p = probabilities + t * a.experts;
    if (a.loss_gradient)
      for (int64_t e = 0; e < a.experts; ++e) d[e] = static_cast<T>(a.loss_gradient[e]);
    if (a.dweight) add_weight_gradient(a, p, t, d);
    T mean = 0;
    for (int64_t e = 0; e < a.experts; ++e) mean += p[e] * d[e];
    T z = 2 * log_sum_exp[t] * lse_squared_gradient;
    for (int64_t e = 0; e < a.experts; ++e) d[e] = p[e] * (d[e] - mean + z);
  }
}

// The bin of one token in RoutingSums::gap.
template <class T>
int64_t gap_bin_of(const T* p, int64_t experts, bool pair_normalized) {
  T first = 0, second = 0;
  for (int64_t e = 0; e < experts; ++e) {
    second = std::max(second, std::min(first, p[e]));
    first = std::max(first, p[e]);
  }
  return gap_bin(first, second, pair_normalized);
}

// Adds the tokens [begin, end) to `sums`, laid out as in RoutingSumsArgs.
template <class T>
void sum_block(const RoutingSumsArgs& a, int64_t begin, int64_t end, double* sums) {
  const RoutingSumsParts<double> to{sums, a.experts};
  double *single = to.single(), *assigned = to.assigned(), *probability = to.probability();
  double *by_count = to.by_count(), *gap = to.gap(), *scalars = &to.tokens();
  for (int64_t t = begin; t < end; ++t) {
    if (a.mask && !a.mask[t]) continue;
    int32_t first = a.row_start[t], last = a.row_start[t + 1];
    for (int32_t i = first; i < last; ++i) assigned[a.expert[i]] += 1;
    if (last - first == 1) single[a.expert[first]] += 1;
    by_count[last - first] += 1;
    const T* p = static_cast<const T*>(a.probabilities) + t * a.experts;
    for (int64_t e = 0; e < a.experts; ++e) probability[e] += static_cast<double>(p[e]);
    gap[gap_bin_of(p, a.experts, a.pair_normalized)] += 1;
    double lse = static_cast<double>(static_cast<const T*>(a.log_sum_exp)[t]);
    scalars[0] += 1;
    scalars[1] += static_cast<double>(static_cast<const T*>(a.entropy)[t]);
    scalars[2] += lse * lse;
  }
}

template <class T>
void sums_kernel(const RoutingSumsArgs& a) {
  int64_t size = routing_sums_size(a.experts);
  int64_t blocks = (a.tokens + kSumBlock - 1) / kSumBlock;
  std::vector<double> partial(static_cast<size_t>(blocks * size));
#pragma omp parallel for schedule(static) if (blocks > 1)
  for (int64_t b = 0; b < blocks; ++b) {
    sum_block<T>(a, b * kSumBlock, std::min(a.tokens, (b + 1) * kSumBlock),
                 partial.data() + b * size);
  }
  std::fill_n(a.sums, size, 0.0);
  for (int64_t b = 0; b < blocks; ++b)
    for (int64_t i = 0; i < size; ++i) a.sums[i] += partial[static_cast<size_t>(b * size + i)];
}

}  // namespace

void launch(CpuStream&, const SelectExpertsArgs& a) {
  visit_gate_type(a.type, [&](auto type) { select_kernel<decltype(type)>(a); });
}

void launch(CpuStream&, const CompactSelectionArgs& a) {
#pragma omp parallel for schedule(static) if (a.tokens > kSerialTokens)
  for (int64_t t = 0; t < a.tokens; ++t) {
    int32_t begin = a.row_start[t];
    std::copy_n(a.chosen + t * a.k_max, a.row_start[t + 1] - begin, a.expert + begin);
  }
}

void launch(CpuStream&, const RoutingWeightsArgs& a) {
  visit_gate_type(a.type, [&](auto type) { weights_kernel<decltype(type)>(a); });
}

void launch(CpuStream&, const RoutingBackwardArgs& a) {
  visit_gate_type(a.type, [&](auto type) { backward_kernel<decltype(type)>(a); });
}

void launch(CpuStream&, const RoutingSumsArgs& a) {
  visit_gate_type(a.type, [&](auto type) { sums_kernel<decltype(type)>(a); });
}

}  // namespace adagate
