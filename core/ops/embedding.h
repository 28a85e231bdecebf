// Table look-up by token id, with the position's row added where positions are learned.
#pragma once

#include "core/device/launch.h"
#include "core/tensor/tensor.h"

namespace adagate {

// y[i] = table[tokens[i]] (+ position_table[positions[i]]) -> [n, D] in the table's type; tokens
// and positions i32 [n], table [V, D], position_table [C, D]; both position tensors may be empty.
// Throws Error naming the id when one is outside its table.
Tensor embedding(const Tensor& tokens, const Tensor& table, const Tensor& positions,
                 const Tensor& position_table);

struct EmbeddingArgs {
  static constexpr std::string_view kKernel = "embedding";
  const int32_t* tokens;       // [n]
  const void* table;           // [vocabulary, cols]
  const int32_t* positions;    // [n] or null
  const void* position_table;  // [context, cols] or null
  void* y;                     // [n, cols]
  int64_t n, cols, vocabulary, context;
  DType dtype;
};

// dtable[ids[i]] += dy[i] in the order of i; without `accumulate`, dtable starts from zeros.
struct EmbeddingBackwardArgs {
  static constexpr std::string_view kKernel = "embedding_backward";
  const int32_t* ids;  // [n]
  const void* dy;      // [n, cols]
  void* dtable;        // [table_rows, cols]
  bool accumulate;
  int64_t n, cols, table_rows;
  DType dtype, dtable_dtype;
};

void launch(CpuStream&, const EmbeddingArgs&);
void launch(CudaStream&, const EmbeddingArgs&);
void launch(CpuStream&, const EmbeddingBackwardArgs&);
void launch(CudaStream&, const EmbeddingBackwardArgs&);

}  // namespace adagate
