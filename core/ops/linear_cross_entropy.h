// The output layer and its loss in one op: logits of all tokens never exist at once.
#pragma once

#include "core/autograd/tape.h"
#include "core/device/stream.h"
#include "core/tensor/tensor.h"

namespace adagate {

struct CrossEntropy {
  Tensor loss;        // [1] f32 (f64 in f64 mode): scale * sum
  double sum = 0;     // of -log p(target) over the valid tokens
  int64_t valid = 0;  // tokens whose target isn't -1
};

// x [n, D], w [V, D], targets i32 [n] in [0, V), or -1 for a token that doesn't count. While a tape
// records, the gradients are computed at once, chunk by chunk of tokens, so forward costs what
// forward and backward cost together and the gradient of w has its contribution before backward
// runs; backward only hands over that of x, and checks that the loss is the root (upstream
// gradient 1). The products of the gradients count for the phase backward all the same. Throws
// Error on a target outside [-1, V).
CrossEntropy linear_cross_entropy(const Tensor& x, const Tensor& w, const Tensor& targets,
                                  double scale);

// Bytes of logits of `type` that linear_cross_entropy holds at a time for `rows` rows of x.
int64_t logits_bytes(int64_t rows, int64_t vocabulary, DType type);

// x [.., D], w [V, D] -> x w^T [.., V] in f32 (f64 in f64 mode), for inference: not recorded.
Tensor logits(const Tensor& x, const Tensor& w);

// Softmax cross-entropy of a chunk of tokens: loss[r] = log sum exp z[r] - z[r, target]. With a
// gradient wanted, scale * (softmax(z) - one_hot(target)) is written over the logits: row r begins
// where row r of z begins, whatever its type.
struct CrossEntropyArgs {
  void* z = nullptr;                 // [rows, vocabulary]
  int64_t ld = 0;                    // elements of z between rows
  const int32_t* targets = nullptr;  // [rows], all in [0, vocabulary)
  double* loss = nullptr;            // [rows]
  int64_t rows = 0, vocabulary = 0;
  bool gradient = false;
  double scale = 1.0;
  DType z_type = DType::f32, gradient_type = DType::f32;  // the latter not wider than the former
};
void launch(CpuStream&, const CrossEntropyArgs&);
void launch(CudaStream&, const CrossEntropyArgs&);

// to[r] = from[index[r]], or to[index[r]] = from[r]: rows of a matrix compacted and spread again.
struct PickRowsArgs {
  const void* from = nullptr;
  void* to = nullptr;
  const int32_t* index = nullptr;  // [rows], distinct
  int64_t rows = 0, row_bytes = 0;
  bool spread = false;
};
void launch(CpuStream&, const PickRowsArgs&);
void launch(CudaStream&, const PickRowsArgs&);

}  // namespace adagate
