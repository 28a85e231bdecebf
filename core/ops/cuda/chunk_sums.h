// Sums of long arrays in f64.
#pragma once

#include "core/base/dtype.h"
#include "core/device/cuda/stream.h"

namespace adagate::cuda {

// Where a sum goes, on the device; null: not wanted.
struct SumTarget {
  double* sum = nullptr;
  void* scaled = nullptr;  // scale * sum, of this floating type
  DType scaled_type = DType::f32;
  double scale = 1;
};

// The sum of x[0 .. n), or of the squares, in an order that depends on n only.
void sum_values(CudaStream& stream, const void* x, DType type, int64_t n, bool squares,
                const SumTarget& to);

}  // namespace adagate::cuda
