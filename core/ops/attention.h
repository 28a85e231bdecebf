// Multi-head scaled dot-product attention, computed blockwise: no [queries, keys] tensor. Queries,
// keys and values are views into what holds them, so that self-attention, cross-attention and
// attention to a cache (core/ops/kv_cache.h) are one kernel with one set of arguments.
#pragma once

#include "core/device/launch.h"
#include "core/ops/dropout.h"
#include "core/tensor/tensor.h"

namespace adagate {

struct AttentionShape {
  int64_t batch = 0;
  int64_t sequence = 0;             // rows of queries of each sample
  int64_t heads = 0, kv_heads = 0;  // heads is a multiple of kv_heads (grouped-query attention)
  int64_t head_dim = 0;
  bool causal = true;      // a query sees the keys up to its own position
  double rotary_base = 0;  // rotary positions, half-split convention; 0: none
  double scale = 0;        // of the scores; 0: 1 / sqrt(head_dim)
};

// Heads side by side in the columns of a matrix [batch * rows, any], from column `first` on.
struct HeadColumns {
  Tensor rows = {};
  int64_t first = 0;
};

// Which rows of each sample are real, and where its queries stand; the keys stand at the positions
// from 0. i32 [batch] each; empty: all rows, from position 0.
struct AttentionRows {
  Tensor queries = {};  // rows past it are zero and pass no gradient
  Tensor keys = {};     // rows past it are not seen; a sample without keys has zeros for results
  Tensor starts = {};   // position of the first query
};

// q: H heads, shape.sequence rows a sample; k, v: KV heads, any number of rows a sample, the same
// for both. They may be columns of one tensor, whose gradient is one tensor then; no copies either
// way. -> [batch * sequence, H * Dh]. Dropout of the probabilities is addressed by (address of the
// query, head, key position). Keeps the inputs, the output and one number per query and head.
// Throws Error on shapes and types that don't fit, a gradient for columns that overlap, and queries
// that start before position 0 or, with rotary positions, end past max(queries, keys) of a sample.
Tensor attention(const HeadColumns& q, const HeadColumns& k, const HeadColumns& v,
                 const AttentionShape& shape, const AttentionRows& rows, const DropoutSite& site,
                 const Tensor& addresses);

// Self-attention. qkv [batch * sequence, (H + 2 KV) * Dh], columns: all q heads, all k heads, all v
// heads. lengths i32 [batch] or empty: of queries and keys.
Tensor attention(const Tensor& qkv, const AttentionShape& shape, const Tensor& lengths,
                 const DropoutSite& site, const Tensor& addresses);

// Rotary tables [positions, head_dim / 2] of cosines and sines, f32 or f64; made once and kept.
struct RotaryTable {
  Tensor cosines, sines;
};
RotaryTable rotary_table(double base, int64_t head_dim, int64_t positions, DType dtype,
                         Device device = {});

// Where heads stand, in elements: head h of row t of sample b begins at
// data + b * sample_stride + t * row_stride + h * head_dim. Written where the arguments say so.
struct HeadsView {
  void* data = nullptr;
  int64_t row_stride = 0, sample_stride = 0;
};

// `C` is Compute<dtype> below.
struct AttentionArgs {
  static constexpr std::string_view kKernel = "attention";
  HeadsView q;                   // `queries` rows of `heads` heads
  HeadsView k, v;                // `keys` rows of `kv_heads` heads
  HeadsView output;              // like q; written
  void* lse;                     // C [batch, heads, queries]: log2 of the softmax's denominator;
                                 // null: not wanted, no backward pass follows
  const int32_t* query_lengths;  // [batch] or null
  const int32_t* key_lengths;    // [batch] or null
  const int32_t* starts;         // [batch] or null: positions of the first queries
  const int64_t* addresses;      // [batch * queries], null without dropout
  const void* cosines;           // C [positions, head_dim / 2] or null
  const void* sines;
  bool rotate_keys;  // with angles: turn keys, too; those of a cache have been turned
  int64_t positions;
  int64_t batch, queries, keys, heads, kv_heads, head_dim;
  bool causal;
  double scale;
  Rng rng;
  DropoutMask mask;
  DType dtype;
};

// Gradients of rows past a length are zero.
struct AttentionBackwardArgs {
  static constexpr std::string_view kKernel = "attention_backward";
  AttentionArgs forward;  // with an lse
  HeadsView doutput;      // like output
  HeadsView dq, dk, dv;   // like q, k, v; written; data null: not wanted
  bool accumulate_dq, accumulate_dk, accumulate_dv;
};

void launch(CpuStream&, const AttentionArgs&);
void launch(CudaStream&, const AttentionArgs&);
void launch(CpuStream&, const AttentionBackwardArgs&);
void launch(CudaStream&, const AttentionBackwardArgs&);

// The key of the dropout draws of one row and head; key position n draws as column n of
// DropoutMask.
ADAGATE_HD inline uint32_t attention_row_key(uint32_t row_key, uint32_t head) {
  return mix32(row_key + (head + 1) * 0x85EBCA6Bu);
}

// For ops that fill AttentionArgs themselves.

// Throws Error naming `op` when the heads, the scale or the rotary positions are impossible.
void check_attention_shape(const char* op, const AttentionShape& shape);
// The same for a packed tensor that doesn't fit them.
void check_packed_qkv(const char* op, const Tensor& qkv, const AttentionShape& shape);

// The same for columns that the tensor does not have: `width` of them, of the input `name`.
void check_columns(const char* op, const char* name, const HeadColumns& columns, int64_t width);

// Columns of `samples` times the same number of rows.
HeadsView heads_view(const HeadColumns& columns, int64_t samples);

// Tables for all positions of queries and keys; empty without rotary positions.
RotaryTable attention_rotary(const AttentionShape& shape, int64_t keys, DType type, Device device);

// Forward arguments without lse and dropout, of `keys` rows of keys a sample.
AttentionArgs attention_args(const HeadColumns& q, const HeadColumns& k, const HeadColumns& v,
                             const Tensor& output, int64_t keys, const AttentionShape& shape,
                             const AttentionRows& rows, const RotaryTable& rotary);

}  // namespace adagate
