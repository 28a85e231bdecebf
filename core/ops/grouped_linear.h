// One linear layer per group of rows: the experts' products.
#pragma once

#include "core/autograd/tape.h"
#include "core/device/launch.h"
#include "core/ops/group_offsets.h"
#include "core/tensor/tensor.h"

namespace adagate {

// y[r] = x[r] w[g] + bias[g] for the rows offsets[g] <= r < offsets[g + 1]. x [n, in] sorted by
// group, w [G, in, out], bias [G, out] or empty, offsets of G groups in n rows -> y [n, out] of w's
// type. Groups may be empty; their weights' gradient is zero then. Throws Error when sizes
// don't match.
Tensor grouped_linear(const Tensor& x, const Tensor& w, const GroupOffsets& offsets,
                      const Tensor& bias = {});

// Products of the rows offsets[g] <= r < offsets[g + 1] of two matrices, for all groups at once:
//   rows:    c[r] (+)= a[r] op(b[g]) + bias[g]          a [n, k], b[g] [k, m] (transposed: [m, k]),
//                                                       c [n, m]
//   weights: c[g] (+)= sum over r of a[r]^T b[r]        a [n, k], b [n, m], c[g] [k, m]
struct GroupedMatmulArgs {
  static constexpr std::string_view kKernel = "grouped_matmul";
  enum class Kind : uint8_t { rows, weights };
  Kind kind = Kind::rows;
  const void* a = nullptr;
  const void* b = nullptr;
  void* c = nullptr;
  const void* bias = nullptr;
  const int64_t* offsets = nullptr;  // [groups + 1]
  // The same, of the host; read before launch() returns. Null: the host has not read them. A kernel
  // for all groups goes by `offsets` inside its launch; a backend that launches product by product
  // copies `offsets` to the host then, and waits for them.
  const int64_t* host_offsets = nullptr;
  int64_t rows = 0;  // n: most rows that there can be in all groups, as a bound for the launch
  int64_t groups = 0, k = 0, m = 0;
  bool trans_b = false;
  DType a_type = DType::f32, b_type = DType::f32, c_type = DType::f32, bias_type = DType::f32;
  bool accumulate = false;

  // Calls f(pointer, elements) for each array of the host.
  template <class F>
  void visit_host_arrays(F&& f) {
    f(host_offsets, groups + 1);
  }
};
void launch(CpuStream&, const GroupedMatmulArgs&);
void launch(CudaStream&, const GroupedMatmulArgs&);

}  // namespace adagate
