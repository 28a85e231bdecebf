// Weights of assignments, and the gradient of a gate's scores.
//
// Weights: a thread per token, whose few assignments lie side by side.
// Gradient: 8, 16 or 32 lanes per token, a lane for each expert (or each 32nd). Where the gradients
// of the token's weights go is found by comparison, without writing to places that depend on data:
// every lane looks through all assignments, which are few. The sum over experts is taken in the
// group of lanes, so one pass suffices; only more than 32 experts keep their values in dlogits on
// the way.
#include "core/device/cuda/stream.h"
#include "core/ops/cuda/lane_groups.h"
#include "core/ops/gate_types.h"
#include "core/ops/routing.h"

namespace adagate {
namespace cuda {
namespace {

constexpr int kThreads = 256;

template <class T>
__global__ void routing_weights(RoutingWeightsArgs a) {
  T* weight = static_cast<T*>(a.weight);
  for (int64_t t = global_thread(); t < a.tokens; t += grid_threads()) {
    const T* p = static_cast<const T*>(a.probabilities) + t * a.experts;
    const int32_t begin = a.row_start[t], end = a.row_start[t + 1];
    T sum = 0;
    if (a.renormalize) {
      for (int32_t i = begin; i < end; ++i) sum += p[a.expert[i]];
    }
    for (int32_t i = begin; i < end; ++i)
      weight[i] = a.renormalize ? p[a.expert[i]] / sum : p[a.expert[i]];
  }
}

// The gradients of one token's weights by its probabilities. w_i = p_i, or renormalized p_i / s:
// then dp_i = (dw_i - sum_j w_j dw_j) / s.
template <class T>
struct WeightGradient {
  const int32_t* expert;
  const T* dweight;
  int32_t begin, end;
  T sum = 1, mean = 0;

  __device__ WeightGradient(const RoutingBackwardArgs& a, const T* p, int64_t t)
      : expert(a.expert), dweight(static_cast<const T*>(a.dweight)), begin(0), end(0) {
    if (!dweight) return;
    begin = a.row_start[t];
    end = a.row_start[t + 1];
    if (!a.renormalize) return;
    sum = 0;
    for (int32_t i = begin; i < end; ++i) sum += p[expert[i]];
    for (int32_t i = begin; i < end; ++i) mean += p[expert[i]] / sum * dweight[i];
  }
  __device__ T of(int64_t e) const {
    T gradient = 0;
    for (int32_t i = begin; i < end; ++i)
      if (expert[i] == e) gradient += (dweight[i] - mean) / sum;
    return gradient;
  }
};

template <class T, int kLanes>
__global__ void routing_backward(RoutingBackwardArgs a) {
  const LaneGroup<kLanes> group;
  const bool kept = a.experts <= kLanes;  // in a register
  const T lse_squared_gradient =
      a.loss_gradient ? static_cast<T>(a.loss_gradient[a.experts]) : T(0);
  for (int64_t first = group.first; first < a.tokens; first += group.step) {
    const int64_t t = first + group.token;
    const bool real = t < a.tokens && (!a.mask || a.mask[t]);
    const T* p = static_cast<const T*>(a.probabilities) + t * a.experts;
    T* d = static_cast<T*>(a.dlogits) + t * a.stride;
    T dp = 0, mean = 0, z = 0;
    if (real) {
      const WeightGradient<T> of_weights(a, p, t);
      for (int64_t e = group.lane; e < a.experts; e += kLanes) {
        dp = of_weights.of(e);
        if (a.loss_gradient) dp += static_cast<T>(a.loss_gradient[e]);
        mean += p[e] * dp;
        if (!kept) d[e] = dp;
      }
      z = 2 * static_cast<const T*>(a.log_sum_exp)[t] * lse_squared_gradient;
    }
    mean = group_reduce<kLanes>(mean, Add{});
    if (t >= a.tokens) continue;
    for (int64_t e = group.lane; e < a.stride; e += kLanes) {
      const bool there = real && e < a.experts;
      d[e] = there ? p[e] * ((kept ? dp : d[e]) - mean + z) : T(0);
    }
  }
}

}  // namespace
}  // namespace cuda

void launch(CudaStream& stream, const RoutingWeightsArgs& a) {
  if (a.tokens == 0) return;
  visit_gate_type(a.type, [&](auto type) {
    ADAGATE_LAUNCH(cuda::routing_weights<decltype(type)>,
                   cuda::blocks_for(a.tokens, cuda::kThreads), cuda::kThreads, 0, stream, a);
  });
}

void launch(CudaStream& stream, const RoutingBackwardArgs& a) {
  if (a.tokens == 0) return;
  visit_gate_type(a.type, [&](auto type) {
    cuda::visit_lanes(a.experts, [&](auto lanes) {
      using T = decltype(type);
      ADAGATE_LAUNCH((cuda::routing_backward<T, decltype(lanes)::value>),
                     cuda::blocks_for(a.tokens * lanes, cuda::kThreads), cuda::kThreads, 0, stream,
                     a);
    });
  });
}

}  // namespace adagate
