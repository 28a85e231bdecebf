// Sums over rows: the gradient of a bias.
#pragma once

#include "core/device/launch.h"
#include "core/tensor/tensor.h"

namespace adagate {

// out[g, c] (+)= sum of x[r, c] over the rows offsets[g] <= r < offsets[g + 1]; one group of all
// rows when offsets is null. Summed in f32 (f64 for f64) in an order that depends on the sizes
// only.
struct ColumnSumArgs {
  static constexpr std::string_view kKernel = "column_sum";
  const void* x = nullptr;  // [rows, cols]
  int64_t ld = 0;           // elements between rows; 0: cols
  void* out = nullptr;      // [groups, cols]
  const int64_t* offsets = nullptr;
  int64_t rows = 0, cols = 0, groups = 1;
  DType x_type = DType::f32, out_type = DType::f32;
  bool accumulate = false;
};
void launch(CpuStream&, const ColumnSumArgs&);
void launch(CudaStream&, const ColumnSumArgs&);

}  // namespace adagate
