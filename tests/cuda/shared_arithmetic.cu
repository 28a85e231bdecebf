// The arithmetic that CPU kernels and CUDA kernels share, compiled for the device. Compiling is the
// test: whoever puts something into an ADAGATE_HD function that a GPU can't do breaks this file.
#include "core/base/bfloat16.h"
#include "core/base/rng.h"
#include "core/ops/activation_math.h"
#include "core/ops/adamw_update.h"
#include "core/ops/attention.h"
#include "core/ops/balance_losses.h"
#include "core/ops/dropout.h"
#include "core/ops/routing_math.h"

namespace adagate::cuda_check {

// A loss is picked by its place in the table, at compile time: its function is the device's there.
template <size_t kLoss>
__global__ void gradient_of_loss(const double* sums, int64_t experts, double* gradient) {
  constexpr auto function = kBalanceLosses[kLoss].gradient;
  if constexpr (function != nullptr) function({sums, experts}, 0.5, gradient);
}
template __global__ void gradient_of_loss<0>(const double*, int64_t, double*);
template __global__ void gradient_of_loss<1>(const double*, int64_t, double*);
template __global__ void gradient_of_loss<2>(const double*, int64_t, double*);

template <class Function, class T>
__global__ void apply(const T* x, T* y, int64_t n) {
  int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  if (i < n) y[i] = Function::value(x[i]) + Function::derivative(x[i]);
}

__global__ void update(AdamWFactors<float> factors, const float* gradient, float* value, float* m,
                       float* v, bfloat16* copy, int64_t n) {
  int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  if (i >= n) return;
  value[i] = adamw_element(factors, value[i], gradient[i], m[i], v[i]);
  copy[i] = bfloat16(value[i]);
}

__global__ void drop(Rng rng, DropoutMask mask, const int64_t* addresses, bfloat16* x, int cols) {
  uint32_t key = attention_row_key(rng.row_key(static_cast<uint64_t>(addresses[blockIdx.x])), 0);
  for (int c = threadIdx.x; c < cols; c += blockDim.x) {
    bfloat16& element = x[int64_t{blockIdx.x} * cols + c];
    element = bfloat16(float(element) * mask.factor(key, static_cast<uint32_t>(c)) *
                       rng.uniform(static_cast<uint64_t>(c)));
  }
}

__global__ void choose(const float* p, int64_t experts, float threshold, int32_t* chosen,
                       int32_t* count) {
  int64_t token = blockIdx.x;
  top_experts(p + token * experts, experts, 2, chosen + token * 2);
  count[token] = static_cast<int32_t>(
      experts_by_gap(p + token * experts, chosen + token * 2, 2, threshold, false));
}

template __global__ void apply<activation::Gelu, float>(const float*, float*, int64_t);
template __global__ void apply<activation::Gelu, double>(const double*, double*, int64_t);
template __global__ void apply<activation::GeluErf, float>(const float*, float*, int64_t);
template __global__ void apply<activation::Relu, float>(const float*, float*, int64_t);
template __global__ void apply<activation::Silu, float>(const float*, float*, int64_t);

}  // namespace adagate::cuda_check
