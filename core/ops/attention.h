// Multi-head scaled dot-product attention, computed blockwise: no [sequence, sequence] tensor.
#pragma once

#include "core/device/launch.h"
#include "core/ops/dropout.h"
#include "core/tensor/tensor.h"

namespace adagate {

struct AttentionShape {
  int64_t batch = 0, sequence = 0;
  int64_t heads = 0, kv_heads = 0;  // heads is a multiple of kv_heads (grouped-query attention)
  int64_t head_dim = 0;
  bool causal = true;
  double rotary_base = 0;  // rotary positions, half-split convention; 0: none
  double scale = 0;        // of the scores; 0: 1 / sqrt(head_dim)
};

// qkv [batch * sequence, (H + 2 KV) * Dh], columns: all q heads, all k heads, all v heads
// -> [batch * sequence, H * Dh]. lengths i32 [batch] or empty: keys past a sample's length are not
// seen, rows past it are zero and pass no gradient. Dropout of the probabilities is addressed by
// (row id, head, key position). Keeps qkv, the output and one number per row and head.
Tensor attention(const Tensor& qkv, const AttentionShape& shape, const Tensor& lengths,
                 const DropoutSite& site, const Tensor& row_ids);

// Keys (rotated) and values of one layer and sequence; grows by doubling.
struct KvCache {
  Tensor k, v;  // [capacity, KV * Dh]
  int64_t length = 0;
};

// Attention of new rows of one sequence (shape.batch is 1, shape.sequence the number of new rows)
// against everything in the cache and themselves; appends their keys and values. No gradient.
Tensor attention_step(const Tensor& qkv, const AttentionShape& shape, KvCache& cache);

// Rotary tables [positions, head_dim / 2] of cosines and sines, f32 or f64; made once and kept.
struct RotaryTable {
  Tensor cosines, sines;
};
RotaryTable rotary_table(double base, int64_t head_dim, int64_t positions, DType dtype,
                         Device device = {});

// `C` is Compute<dtype> below.
struct AttentionArgs {
  static constexpr std::string_view kKernel = "attention";
  const void* qkv;         // [batch * sequence, (heads + 2 kv_heads) * head_dim]
  void* output;            // [batch * sequence, heads * head_dim]
  void* lse;               // C [batch, heads, sequence]: log2 of the softmax's denominator
  const int32_t* lengths;  // [batch] or null
  const int64_t* row_ids;  // [batch * sequence], null without dropout
  const void* cosines;     // C [sequence, head_dim / 2] or null
  const void* sines;
  int64_t batch, sequence, heads, kv_heads, head_dim;
  bool causal;
  double scale;
  Rng rng;
  DropoutMask mask;
  DType dtype;
  // Forward of one sequence against cached rows: the queries stand at the positions from `start`,
  // keys (rotated) and values apart from them, [start + sequence, kv_heads * head_dim]. lse may be
  // null then.
  const void* cached_keys = nullptr;
  const void* cached_values = nullptr;
  int64_t start = 0;
};

struct AttentionBackwardArgs {
  static constexpr std::string_view kKernel = "attention_backward";
  AttentionArgs forward;
  const void* doutput;  // [batch * sequence, heads * head_dim]
  void* dqkv;           // like qkv
  bool accumulate;
};

struct AttentionStepArgs {
  static constexpr std::string_view kKernel = "attention_step";
  const void* qkv;  // [rows, (heads + 2 kv_heads) * head_dim]
  void* output;     // [rows, heads * head_dim]
  void* k;          // [capacity, kv_heads * head_dim], rows [0, start) filled
  void* v;
  const void* cosines;  // C [start + rows, head_dim / 2] or null
  const void* sines;
  int64_t rows, start, heads, kv_heads, head_dim;
  bool causal;
  double scale;
  DType dtype;
};

void launch(CpuStream&, const AttentionArgs&);
void launch(CudaStream&, const AttentionArgs&);
void launch(CpuStream&, const AttentionBackwardArgs&);
void launch(CudaStream&, const AttentionBackwardArgs&);
void launch(CpuStream&, const AttentionStepArgs&);
void launch(CudaStream&, const AttentionStepArgs&);

// The key of the dropout draws of one row and head; key position n draws as column n of
// DropoutMask.
ADAGATE_HD inline uint32_t attention_row_key(uint32_t row_key, uint32_t head) {
  return mix32(row_key + (head + 1) * 0x85EBCA6Bu);
}

}  // namespace adagate
