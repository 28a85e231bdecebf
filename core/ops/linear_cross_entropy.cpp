#include "core/ops/linear_cross_entropy.h"

#include <algorithm>
#include <vector>

#include "core/base/phase_timer.h"
#include "core/ops/column_sum.h"
#include "core/ops/matmul.h"
#include "core/ops/permute.h"

namespace adagate {
namespace {

// Bytes of the logits of one chunk. A larger chunk passes over the gradient of w less often, a
// smaller one stays in the cache between product and softmax.
constexpr int64_t kChunkBytes = int64_t{104} << 20;
constexpr int64_t kFewestRows = 64;
// Rows of the weight's gradient per product: a product that reads its left operand transposed runs
// up to 10 % faster on such a block than on the whole vocabulary.
constexpr int64_t kGradientRows = 2048;

// Row stride of the logits: whole cache lines, and not a multiple of the page size, which would
// put a column's elements into a few cache sets.
int64_t padded(int64_t vocabulary) {
  int64_t ld = (vocabulary + 15) / 16 * 16;
  return ld % 512 == 0 ? ld + 16 : ld;
}

int64_t rows_per_chunk(int64_t rows, int64_t vocabulary, DType z_type) {
  int64_t row_bytes = padded(vocabulary) * static_cast<int64_t>(size_of(z_type));
  int64_t most = std::max(kFewestRows, kChunkBytes / row_bytes / 64 * 64);
  int64_t chunks = std::max<int64_t>(1, (rows + most - 1) / most);
  return std::min(most, ((rows + chunks - 1) / chunks + 15) / 16 * 16);
}

// One call: what its chunks share.
class Chunks {
 public:
  Chunks(const Tensor& x, const Tensor& w, const Tensor& bias, double scale, double smoothing,
         bool gradient)
      : w_(w),
        bias_(bias),
        scale_(scale),
        smoothing_(smoothing),
        gradient_(gradient),
        vocabulary_(w.dim(0)),
        ld_(padded(vocabulary_)),
        z_type_(compute_dtype(x.dtype())),
        gradient_type_(x.dtype() == w.dtype() ? x.dtype() : z_type_) {}

  int64_t rows_of(int64_t rows) const { return rows_per_chunk(rows, vocabulary_, z_type_); }

  // x and dx are rows of this chunk; dx, dw and db may be empty.
  void run(const Tensor& x, const Tensor& targets, const Tensor& losses, const Tensor& dx,
           const GradDestination& dw, const GradDestination& db) {
    int64_t rows = x.rows();
    if (!z_) z_ = Tensor::empty({rows_of(rows), ld_}, z_type_, x.device());
    launch_on(x.device(), MatmulArgs{.a = x.raw(),
                                     .b = w_.raw(),
                                     .c = z_.raw(),
                                     .bias = bias_.raw(),
                                     .m = rows,
                                     .n = vocabulary_,
                                     .k = x.cols(),
                                     .trans_b = true,
                                     .ldc = ld_,
                                     .a_type = x.dtype(),
                                     .b_type = w_.dtype(),
                                     .c_type = z_type_,
                                     .bias_type = bias_.dtype()});
    launch_on(x.device(), CrossEntropyArgs{.z = z_.raw(),
                                           .ld = ld_,
                                           .targets = targets.data<int32_t>(),
                                           .loss = losses.data<double>(),
                                           .rows = rows,
                                           .vocabulary = vocabulary_,
                                           .gradient = gradient_,
                                           .scale = scale_,
                                           .smoothing = smoothing_,
                                           .z_type = z_type_,
                                           .gradient_type = gradient_type_});
    if (!dx && !dw && !db) return;
    PhaseScope phase(Phase::backward);  // though forward asked for it
    int64_t ld = ld_ * static_cast<int64_t>(size_of(z_type_) / size_of(gradient_type_));
    if (dx) {
      launch_on(x.device(), MatmulArgs{.a = z_.raw(),
                                       .b = w_.raw(),
                                       .c = dx.raw(),
                                       .m = rows,
                                       .n = x.cols(),
                                       .k = vocabulary_,
                                       .lda = ld,
                                       .a_type = gradient_type_,
                                       .b_type = w_.dtype(),
                                       .c_type = dx.dtype()});
    }
    if (dw) add_weight_gradient(x, dw, ld);
    if (db) {
      launch_on(x.device(), ColumnSumArgs{.x = z_.raw(),
                                          .ld = ld,
                                          .out = db.tensor.raw(),
                                          .rows = rows,
                                          .cols = vocabulary_,
                                          .x_type = gradient_type_,
                                          .out_type = db.tensor.dtype(),
                                          .accumulate = db.accumulate});
    }
  }

 private:
  // dw [V, D] = or += z^T x, where z holds the logits' gradient with row stride `ld`.
  void add_weight_gradient(const Tensor& x, const GradDestination& dw, int64_t ld) {
    auto* gradient = static_cast<std::byte*>(z_.raw());
    auto* to = static_cast<std::byte*>(dw.tensor.raw());
    size_t column = size_of(gradient_type_);
    size_t row = static_cast<size_t>(x.cols()) * size_of(dw.tensor.dtype());
    for (int64_t first = 0; first < vocabulary_; first += kGradientRows) {
      launch_on(x.device(), MatmulArgs{.a = gradient + static_cast<size_t>(first) * column,
                                       .b = x.raw(),
                                       .c = to + static_cast<size_t>(first) * row,
                                       .m = std::min(kGradientRows, vocabulary_ - first),
                                       .n = x.cols(),
                                       .k = x.rows(),
                                       .trans_a = true,
                                       .lda = ld,
                                       .a_type = gradient_type_,
                                       .b_type = x.dtype(),
                                       .c_type = dw.tensor.dtype(),
                                       .accumulate = dw.accumulate});
    }
  }

  Tensor w_, bias_, z_;
  double scale_, smoothing_;
  bool gradient_;
  int64_t vocabulary_, ld_;
  DType z_type_, gradient_type_;
};

int64_t row_bytes(const Tensor& x) {
  return x.cols() * static_cast<int64_t>(size_of(x.dtype()));
}

// x[index[i]] = rows[i]
void spread_rows(const Tensor& rows, const Tensor& x, const Tensor& index) {
  launch_on(x.device(), ScatterRowsArgs{.in = rows.raw(),
                                        .to = index.data<int32_t>(),
                                        .out = x.raw(),
                                        .rows = rows.rows(),
                                        .row_bytes = row_bytes(x)});
}

void check_sizes(const Tensor& x, const Tensor& w, const LossTargets& targets) {
  check(w.shape().rank() == 2 && x.cols() == w.dim(1),
        "linear_cross_entropy: x has {} columns, the weight is {}", x.cols(), w.shape());
  check(targets.rows == x.rows(), "linear_cross_entropy: {} targets for {} rows", targets.rows,
        x.rows());
}

void check_smoothing(double smoothing) {
  check(smoothing >= 0 && smoothing < 1, "cross-entropy: label smoothing of {}: from 0, below 1",
        smoothing);
}

// Sums what the rows' losses are, and records that backward hands `dx` to x. The gradients hold for
// an upstream gradient of 1 only; whether it is one is asked of the slot, as its number may be on a
// device.
CrossEntropy finish(const char* op, const Tensor& x, const Tensor& losses, double scale,
                    bool recording, const Tensor& dx) {
  DType type = compute_dtype(x.dtype());
  CrossEntropy result{.loss = Tensor::empty({1}, type, x.device()),
                      .sum = Tensor::empty({1}, DType::f64, x.device()),
                      .valid = losses.numel()};
  launch_on(x.device(), LossSumArgs{.losses = losses.data<double>(),
                                    .n = result.valid,
                                    .scale = scale,
                                    .sum = result.sum.data<double>(),
                                    .loss = result.loss.raw(),
                                    .loss_type = type});
  if (!recording) return result;
  auto upstream = std::make_shared<std::weak_ptr<GradSlot>>();
  result.loss = record(op, result.loss, [op, dx, to = Gradient(x), upstream](const Tensor&) {
    auto slot = upstream->lock();
    check(slot && slot->seed() == 1.0,
          "{}: backward must start at the loss with gradient 1; put factors into `scale`", op);
    if (dx) to.add(dx);
  });
  *upstream = result.loss.slot();
  return result;
}

}  // namespace

LossTargets loss_targets(std::span<const int32_t> targets, int64_t vocabulary, Device device) {
  std::vector<int32_t> valid, rows;
  valid.reserve(targets.size());
  rows.reserve(targets.size());
  for (size_t r = 0; r < targets.size(); ++r) {
    if (targets[r] == -1) continue;
    check(targets[r] >= 0 && targets[r] < vocabulary,
          "linear_cross_entropy: target {} of row {} is outside the vocabulary of {}", targets[r],
          r, vocabulary);
    valid.push_back(targets[r]);
    rows.push_back(static_cast<int32_t>(r));
  }
  auto upload = [&](const std::vector<int32_t>& numbers) {
    return Tensor::from(std::span<const int32_t>(numbers), {static_cast<int64_t>(numbers.size())},
                        device);
  };
  return {.target = upload(valid),
          .row = valid.size() == targets.size() ? Tensor() : upload(rows),
          .rows = static_cast<int64_t>(targets.size())};
}

int64_t logits_bytes(int64_t rows, int64_t vocabulary, DType type) {
  return rows_per_chunk(rows, vocabulary, type) * padded(vocabulary) *
         static_cast<int64_t>(size_of(type));
}

CrossEntropy linear_cross_entropy(const Tensor& x_any, const Tensor& w, const LossTargets& targets,
                                  double scale, double smoothing, const Tensor& bias) {
  Tensor x = x_any.reshape({x_any.rows(), x_any.cols()});
  check_sizes(x, w, targets);
  check_smoothing(smoothing);
  check(!bias || bias.numel() == w.dim(0), "linear_cross_entropy: bias {} for {} words",
        bias.shape(), w.dim(0));
  int64_t count = targets.valid();
  bool all = !targets.row;
  bool recording = tape_needs({&x, &w, &bias});
  Tensor dx = recording && x.requires_grad() ? empty_like(x.detach()) : Tensor();
  if (dx && !all) dx.fill(0);
  GradDestination dw = recording ? Gradient(w).destination() : GradDestination{};
  GradDestination db = recording ? Gradient(bias).destination() : GradDestination{};
  for (const GradDestination* to : {&dw, &db})
    if (*to && !to->accumulate && count == 0) to->tensor.fill(0);

  Chunks chunks(x, w, bias, scale, smoothing, recording);
  int64_t step = chunks.rows_of(count);
  Tensor losses = Tensor::empty({count}, DType::f64, x.device());
  for (int64_t begin = 0; begin < count; begin += step) {
    int64_t end = std::min(begin + step, count);
    Tensor index = all ? Tensor() : targets.row.slice(begin, end);
    Tensor rows = all ? x.slice(begin, end).detach() : pick_rows(x, index);
    Tensor drows;
    if (dx) drows = all ? dx.slice(begin, end) : empty_like(rows);
    chunks.run(rows, targets.target.slice(begin, end), losses.slice(begin, end), drows, dw, db);
    dw.accumulate = db.accumulate = true;
    if (dx && !all) spread_rows(drows, dx, index);
  }
  return finish("linear_cross_entropy", x, losses, scale, recording, dx);
}

CrossEntropy cross_entropy(const Tensor& logits, const LossTargets& targets, double scale,
                           double smoothing) {
  check(logits.shape().rank() == 2 && logits.rows() == targets.rows,
        "cross_entropy: logits {}, {} targets", logits.shape(), targets.rows);
  check_smoothing(smoothing);
  bool recording = tape_needs({&logits});
  // The kernel writes the gradient over the logits that it reads.
  DType type = compute_dtype(logits.dtype());
  Tensor z = Tensor::empty({targets.valid(), logits.cols()}, type, logits.device());
  z.copy_from(targets.row ? pick_rows(logits, targets.row) : logits.detach());
  Tensor losses = Tensor::empty({targets.valid()}, DType::f64, logits.device());
  launch_on(logits.device(), CrossEntropyArgs{.z = z.raw(),
                                              .ld = z.cols(),
                                              .targets = targets.target.data<int32_t>(),
                                              .loss = losses.data<double>(),
                                              .rows = z.rows(),
                                              .vocabulary = z.cols(),
                                              .gradient = recording,
                                              .scale = scale,
                                              .smoothing = smoothing,
                                              .z_type = type,
                                              .gradient_type = type});
  Tensor dz;
  if (recording) {
    dz = z.to(logits.dtype());
    if (targets.row) {
      dz = Tensor::zeros(logits.shape(), logits.dtype(), logits.device());
      spread_rows(z.to(logits.dtype()), dz, targets.row);
    }
  }
  return finish("cross_entropy", logits, losses, scale, recording, dz);
}

Tensor logits(const Tensor& x, const Tensor& w) {
  check(w.shape().rank() == 2 && x.cols() == w.dim(1), "logits: x has {} columns, the weight is {}",
        x.cols(), w.shape());
  Tensor z = matmul({x}, transposed(w), compute_dtype(x.dtype()));
  Shape shape = x.shape();
  shape[-1] = w.dim(0);
  return z.reshape(shape);
}

}  // namespace adagate
