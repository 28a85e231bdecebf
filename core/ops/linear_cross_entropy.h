// The output layer and its loss in one op: logits of all tokens never exist at once.
#pragma once

#include <span>

#include "core/autograd/tape.h"
#include "core/device/launch.h"
#include "core/tensor/tensor.h"

namespace adagate {

// The rows that count for a loss, and what each should have been.
struct LossTargets {
  Tensor target;     // i32 [valid], in [0, vocabulary)
  Tensor row;        // i32 [valid], rising; empty when all rows count
  int64_t rows = 0;  // also those that don't count
  int64_t valid() const { return target.numel(); }
};

// targets [rows] of the host in [0, vocabulary), or -1 for a row that doesn't count. Throws Error
// naming the target and its row otherwise.
LossTargets loss_targets(std::span<const int32_t> targets, int64_t vocabulary, Device device = {});

struct CrossEntropy {
  Tensor loss;        // [1] f32 (f64 in f64 mode): scale * sum
  Tensor sum;         // f64 [1], of -log p(target) over the valid rows
  int64_t valid = 0;  // rows
};

// x [n, D], w [V, D]. While a tape
// records, the gradients are computed at once, chunk by chunk of tokens, so forward costs what
// forward and backward cost together and the gradient of w has its contribution before backward
// runs; backward only hands over that of x, and checks that the loss is a root of the
// backward pass with gradient 1. The products of the gradients count for the phase backward all the
// same. Throws Error when sizes don't match.
// With a bias [V] in x's type or f32 (f64), logits are x w^T + bias. `smoothing` is that of
// cross_entropy().
CrossEntropy linear_cross_entropy(const Tensor& x, const Tensor& w, const LossTargets& targets,
                                  double scale, double smoothing = 0, const Tensor& bias = {});

// The same for logits [n, V] that exist: heads over classes or positions. The target's share of a
// row is 1 - smoothing, the rest is spread evenly over all V (Szegedy et al. 2016, section 7); in
// [0, 1). Its gradient, too, holds as a root of the backward pass only.
CrossEntropy cross_entropy(const Tensor& logits, const LossTargets& targets, double scale,
                           double smoothing = 0);

// Bytes of logits of `type` that linear_cross_entropy holds at a time for `rows` rows of x.
int64_t logits_bytes(int64_t rows, int64_t vocabulary, DType type);

// x [.., D], w [V, D] -> x w^T [.., V] in f32 (f64 in f64 mode), for inference: not recorded.
Tensor logits(const Tensor& x, const Tensor& w);

// Softmax cross-entropy of a chunk of tokens: loss[r] = log sum exp z[r] - <z[r], t[r]>, where t[r]
// is 1 - smoothing at the target and smoothing / vocabulary everywhere. With a gradient wanted,
// scale * (softmax(z) - t) is written over the logits: row r begins where row r of z begins,
// whatever its type.
struct CrossEntropyArgs {
  static constexpr std::string_view kKernel = "cross_entropy";
  void* z = nullptr;                 // [rows, vocabulary]
  int64_t ld = 0;                    // elements of z between rows
  const int32_t* targets = nullptr;  // [rows], all in [0, vocabulary)
  double* loss = nullptr;            // [rows]
  int64_t rows = 0, vocabulary = 0;
  bool gradient = false;
  double scale = 1.0, smoothing = 0.0;
  DType z_type = DType::f32, gradient_type = DType::f32;  // the latter not wider than the former
};
void launch(CpuStream&, const CrossEntropyArgs&);
void launch(CudaStream&, const CrossEntropyArgs&);

// sum = losses[0] + losses[1] + .., in order; loss = scale * sum.
struct LossSumArgs {
  static constexpr std::string_view kKernel = "loss_sum";
  const double* losses = nullptr;  // [n]
  int64_t n = 0;
  double scale = 1.0;
  double* sum = nullptr;  // [1]
  void* loss = nullptr;   // [1]
  DType loss_type = DType::f32;
};
void launch(CpuStream&, const LossSumArgs&);
void launch(CudaStream&, const LossSumArgs&);

}  // namespace adagate
