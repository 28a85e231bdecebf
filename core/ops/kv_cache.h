// Keys and values of one layer that are kept from step to step: of one sequence, of several beside
// each other, of the beams of a search, or of an encoder's output that decoders look at.
#pragma once

#include "core/ops/attention.h"

namespace adagate {

// Grows by doubling. A copy may go on apart from what it was copied from.
struct KvCache {
  int64_t sequences = 1;
  Tensor k = {}, v = {};  // [sequences, capacity, KV * Dh], keys rotated; empty before any rows
  Tensor lengths = {};    // i32 [sequences]: rows of each; empty before any
  int64_t length = 0;     // rows of a sequence that has taken all of every step: none has more

  // Appends shape.sequence rows to each sequence (shape.batch of them), of which the first
  // counts[i] are real (i32 [sequences]; empty: all). Rotates keys to the positions they get.
  // Throws Error on rows unlike those that are there. Not differentiable, as all of this.
  void append(const HeadColumns& new_k, const HeadColumns& new_v, const AttentionShape& shape,
              const Tensor& counts = {});

  // Sequence i becomes what sequence indices[i] was: beams that go on, are copied, or end. indices
  // i32 [any number], on the cache's device. An index that is none of a sequence: throws Error on
  // the CPU; a GPU, which can't, leaves an empty sequence.
  void reorder(const Tensor& indices);
};

// Attention of new rows to everything in the cache and themselves, after their keys and values have
// been appended. qkv [sequences * rows, (H + 2 KV) * Dh], shape.batch the number of sequences,
// shape.sequence that of rows; counts as for append().
Tensor attention_step(const Tensor& qkv, const AttentionShape& shape, KvCache& cache,
                      const Tensor& counts = {});

// Attention to a cache that stays as it is: an encoder's keys and values, say. q: H heads; lengths
// i32 [sequences] or empty: real queries of each.
Tensor attention_to_cache(const HeadColumns& q, const AttentionShape& shape, const KvCache& cache,
                          const Tensor& lengths = {});

// Positions i32 [sequences * rows] of the next `rows` rows of each sequence.
Tensor next_positions(const KvCache& cache, int64_t rows, Device device);

struct AppendKeysArgs {
  static constexpr std::string_view kKernel = "append_keys";
  HeadsView k, v;                // new rows
  HeadsView cached_k, cached_v;  // written
  const int32_t* starts;         // [sequences] rows before; null: none
  const int32_t* counts;         // [sequences] new rows that are real; null: all
  int32_t* lengths;              // [sequences] <- rows after
  const void* cosines;           // C [rows after, head_dim / 2] or null
  const void* sines;
  int64_t sequences, rows, kv_heads, head_dim;
  DType dtype;
};

// Row t of sequence i <- row t of sequence from[i], for all rows that it has.
struct CopySequencesArgs {
  static constexpr std::string_view kKernel = "copy_sequences";
  const void *k, *v;       // [from_sequences, from_capacity, row_bytes]
  const int32_t* lengths;  // [from_sequences]
  const int32_t* from;     // [sequences]; null: each from its own
  void *to_k, *to_v;       // [sequences, capacity, row_bytes]
  int32_t* to_lengths;     // [sequences]
  int64_t from_sequences, from_capacity, sequences, capacity, row_bytes;
};

struct NextPositionsArgs {
  static constexpr std::string_view kKernel = "next_positions";
  const int32_t* lengths;  // [sequences]; null: 0
  int32_t* positions;      // [sequences, rows]
  int64_t sequences, rows;
};

void launch(CpuStream&, const AppendKeysArgs&);
void launch(CudaStream&, const AppendKeysArgs&);
void launch(CpuStream&, const CopySequencesArgs&);
void launch(CudaStream&, const CopySequencesArgs&);
void launch(CpuStream&, const NextPositionsArgs&);
void launch(CudaStream&, const NextPositionsArgs&);

}  // namespace adagate
