// Moving rows between token order and expert order. A token may stand in any number of rows (CSR),
// each row belongs to one token; every output element is gathered by one thread, so that no result
// depends on timing and no atomics are needed.
#pragma once

#include "core/autograd/tape.h"
#include "core/device/launch.h"
#include "core/ops/group_offsets.h"
#include "core/ops/routing.h"
#include "core/tensor/tensor.h"

namespace adagate {

// Assignments sorted by expert, stably: inside an expert by token.
struct ExpertOrder {
  GroupOffsets offsets;  // rows of each expert
  Tensor row_start;      // i32 [tokens + 1], as in the selection
  Tensor row;            // i32 [rows] assignment -> its sorted row
  Tensor token;          // i32 [rows] sorted row -> its token

  int64_t tokens() const { return row_start.numel() - 1; }
  int64_t rows() const { return row.numel(); }  // assignments, or room for them: see Selection
};

ExpertOrder sort_by_expert(const Selection& selection);

// x [tokens, width] -> [rows, width]: each token's row once per expert it takes, sorted.
Tensor gather_rows(const Tensor& x, const ExpertOrder& order);

// y_t = sum of weight[i] * rows[row[i]] over the token's assignments i, summed in f32 (f64);
// tokens without any give zero. rows [order.rows(), width], weight [order.rows()] f32 (f64)
// -> [tokens, width] of the rows' type.
Tensor combine_rows(const Tensor& rows, const Tensor& weight, const ExpertOrder& order);

// y[i] = x[from[i]]; `from` i32 [n] is a permutation of x's n rows and `to` its inverse.
Tensor permute_rows(const Tensor& x, const Tensor& from, const Tensor& to);

// y[i] = x[index[i]]; index i32 [n], rows of x. Not differentiable.
Tensor pick_rows(const Tensor& x, const Tensor& index);

struct SortByExpertArgs {
  static constexpr std::string_view kKernel = "sort_by_expert";
  const int32_t* row_start = nullptr;
  const int32_t* expert = nullptr;
  int64_t* offsets = nullptr;  // [experts + 1]
  int32_t* row = nullptr;
  int32_t* token = nullptr;
  int64_t tokens = 0, experts = 0;
};
void launch(CpuStream&, const SortByExpertArgs&);
void launch(CudaStream&, const SortByExpertArgs&);

// out[i] = in[from[i]], rows of row_bytes; all rows of `in`, or some of them. With `used` only the
// first used[0] of the `rows` are gathered.
struct GatherRowsArgs {
  static constexpr std::string_view kKernel = "gather_rows";
  const void* in = nullptr;
  const int32_t* from = nullptr;
  void* out = nullptr;
  const int64_t* used = nullptr;
  int64_t rows = 0, row_bytes = 0;
};
void launch(CpuStream&, const GatherRowsArgs&);
void launch(CudaStream&, const GatherRowsArgs&);

// out[to[i]] = in[i], rows of row_bytes; `to` without repeats.
struct ScatterRowsArgs {
  static constexpr std::string_view kKernel = "scatter_rows";
  const void* in = nullptr;
  const int32_t* to = nullptr;
  void* out = nullptr;
  int64_t rows = 0, row_bytes = 0;
};
void launch(CpuStream&, const ScatterRowsArgs&);
void launch(CudaStream&, const ScatterRowsArgs&);

// out_t (+)= sum over i in [row_start[t], row_start[t + 1]) of weight[i] * rows[row[i]].
struct SumRowsArgs {
  static constexpr std::string_view kKernel = "sum_rows";
  const void* rows = nullptr;
  const void* weight = nullptr;  // f32 (f64); null: 1
  const int32_t* row_start = nullptr;
  const int32_t* row = nullptr;
  void* out = nullptr;
  int64_t tokens = 0, width = 0;
  bool accumulate = false;
  DType type = DType::f32;  // of rows and out
};
void launch(CpuStream&, const SumRowsArgs&);
void launch(CudaStream&, const SumRowsArgs&);

// drows[row[i]] (+)= weight[i] dy_t and dweight[i] (+)= <dy_t, rows[row[i]]>; null: left out.
struct CombineBackwardArgs {
  static constexpr std::string_view kKernel = "combine_backward";
  const void* dy = nullptr;
  const void* rows = nullptr;
  const void* weight = nullptr;
  const int32_t* row_start = nullptr;
  const int32_t* row = nullptr;
  void* drows = nullptr;
  void* dweight = nullptr;
  int64_t tokens = 0, width = 0;
  bool accumulate_drows = false, accumulate_dweight = false;
  DType type = DType::f32;
};
void launch(CpuStream&, const CombineBackwardArgs&);
void launch(CudaStream&, const CombineBackwardArgs&);

}  // namespace adagate
