// Bias and activation of a feed-forward layer in one pass.
#pragma once

#include "core/autograd/tape.h"
#include "core/device/launch.h"
#include "core/ops/activation_math.h"
#include "core/ops/group_offsets.h"
#include "core/tensor/tensor.h"

namespace adagate {

// y = act(h + bias). h [rows, F] -> y [rows, F]; for swiglu h [rows, 2F], the gate half first, ->
// [rows, F]. `bias` has h's columns, or is empty. The leading shape of h is kept.
Tensor bias_activation(const Tensor& h, const Tensor& bias, Activation activation);

// The same for rows sorted by group (expert): those of group g get bias[g]. bias [G, columns of h]
// or empty.
Tensor bias_activation(const Tensor& h, const Tensor& bias, const GroupOffsets& offsets,
                       Activation activation);

struct BiasActivationArgs {
  static constexpr std::string_view kKernel = "bias_activation";
  const void* h = nullptr;  // [rows, cols]
  const void* bias = nullptr;
  void* y = nullptr;  // [rows, cols], swiglu: [rows, cols / 2]
  // [groups + 1]; null: one group of all rows. Rows from offsets[groups] on are left alone.
  const int64_t* offsets = nullptr;
  int64_t rows = 0, cols = 0, groups = 1;
  Activation activation = Activation::identity;
  DType type = DType::f32, bias_type = DType::f32;
};
void launch(CpuStream&, const BiasActivationArgs&);
void launch(CudaStream&, const BiasActivationArgs&);

// dh (+)= act'(h + bias) dy and dbias[g] (+)= the column sums of that; either may be null.
struct BiasActivationBackwardArgs {
  static constexpr std::string_view kKernel = "bias_activation_backward";
  BiasActivationArgs forward;  // without y
  const void* dy = nullptr;
  void* dh = nullptr;
  void* dbias = nullptr;
  DType dbias_type = DType::f32;
  bool accumulate_dh = false, accumulate_dbias = false;
};
void launch(CpuStream&, const BiasActivationBackwardArgs&);
void launch(CudaStream&, const BiasActivationBackwardArgs&);

}  // namespace adagate
