#include "core/ops/linear_cross_entropy.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "core/base/phase_timer.h"
#include "core/ops/matmul.h"

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
  Chunks(const Tensor& x, const Tensor& w, double scale, bool gradient)
      : x_(x),
        w_(w),
        scale_(scale),
        gradient_(gradient),
        vocabulary_(w.dim(0)),
        ld_(padded(vocabulary_)),
        z_type_(x.dtype() == DType::f64 ? DType::f64 : DType::f32),
        gradient_type_(x.dtype() == w.dtype() ? x.dtype() : z_type_) {}

  int64_t rows_of(int64_t rows) const { return rows_per_chunk(rows, vocabulary_, z_type_); }

  // x and dx are rows of this chunk; dx and dw may be empty.
  void run(const Tensor& x, const int32_t* targets, double* loss, const Tensor& dx,
           const GradDestination& dw) {
    int64_t rows = x.rows();
    if (!z_) z_ = Tensor::empty({rows_of(rows), ld_}, z_type_, x.device());
    launch_on(x.device(), MatmulArgs{.a = x.raw(),
                                     .b = w_.raw(),
                                     .c = z_.raw(),
                                     .m = rows,
                                     .n = vocabulary_,
                                     .k = x.cols(),
                                     .trans_b = true,
                                     .ldc = ld_,
                                     .a_type = x.dtype(),
                                     .b_type = w_.dtype(),
                                     .c_type = z_type_});
    launch_on(x.device(), CrossEntropyArgs{.z = z_.raw(),
                                           .ld = ld_,
                                           .targets = targets,
                                           .loss = loss,
                                           .rows = rows,
                                           .vocabulary = vocabulary_,
                                           .gradient = gradient_,
                                           .scale = scale_,
                                           .z_type = z_type_,
                                           .gradient_type = gradient_type_});
    if (!dx && !dw) return;
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

  Tensor x_, w_, z_;
  double scale_;
  bool gradient_;
  int64_t vocabulary_, ld_;
  DType z_type_, gradient_type_;
};

Tensor pick_rows(const Tensor& from, std::span<const int32_t> index) {
  Tensor to =
      Tensor::empty({static_cast<int64_t>(index.size()), from.cols()}, from.dtype(), from.device());
  launch_on(from.device(),
            PickRowsArgs{.from = from.raw(),
                         .to = to.raw(),
                         .index = index.data(),
                         .rows = to.rows(),
                         .row_bytes = static_cast<int64_t>(size_of(from.dtype())) * from.cols()});
  return to;
}

void spread_rows(const Tensor& from, const Tensor& to, std::span<const int32_t> index) {
  launch_on(from.device(),
            PickRowsArgs{.from = from.raw(),
                         .to = to.raw(),
                         .index = index.data(),
                         .rows = from.rows(),
                         .row_bytes = static_cast<int64_t>(size_of(from.dtype())) * from.cols(),
                         .spread = true});
}

// Rows that count, and their targets.
struct ValidRows {
  std::vector<int32_t> index, targets;
};

ValidRows valid_rows(const Tensor& x, const Tensor& w, const Tensor& targets) {
  check(w.shape().rank() == 2 && x.cols() == w.dim(1),
        "linear_cross_entropy: x has {} columns, the weight is {}", x.cols(), w.shape());
  check(targets.numel() == x.rows(), "linear_cross_entropy: {} targets for {} rows",
        targets.numel(), x.rows());
  ValidRows valid;
  valid.index.reserve(static_cast<size_t>(x.rows()));
  valid.targets.reserve(static_cast<size_t>(x.rows()));
  const int32_t* target = targets.data<int32_t>();
  for (int64_t r = 0; r < x.rows(); ++r) {
    if (target[r] == -1) continue;
    check(target[r] >= 0 && target[r] < w.dim(0),
          "linear_cross_entropy: target {} of row {} is outside the vocabulary of {}", target[r], r,
          w.dim(0));
    valid.index.push_back(static_cast<int32_t>(r));
    valid.targets.push_back(target[r]);
  }
  return valid;
}

}  // namespace

int64_t logits_bytes(int64_t rows, int64_t vocabulary, DType type) {
  return rows_per_chunk(rows, vocabulary, type) * padded(vocabulary) *
         static_cast<int64_t>(size_of(type));
}

CrossEntropy linear_cross_entropy(const Tensor& x_any, const Tensor& w, const Tensor& targets,
                                  double scale) {
  Tensor x = x_any.reshape({x_any.rows(), x_any.cols()});
  ValidRows valid = valid_rows(x, w, targets);
  auto count = static_cast<int64_t>(valid.index.size());
  bool all = count == x.rows();
  bool recording = tape_needs({&x, &w});
  Tensor dx = recording && x.requires_grad() ? empty_like(x.detach()) : Tensor();
  if (dx && !all) dx.fill(0);
  GradDestination dw = recording ? Gradient(w).destination() : GradDestination{};
  if (dw && !dw.accumulate && count == 0) dw.tensor.fill(0);

  Chunks chunks(x, w, scale, recording);
  int64_t step = chunks.rows_of(count);
  std::vector<double> losses(static_cast<size_t>(count));
  for (int64_t begin = 0; begin < count; begin += step) {
    int64_t end = std::min(begin + step, count);
    auto index = std::span(valid.index)
                     .subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
    Tensor rows = all ? x.slice(begin, end).detach() : pick_rows(x, index);
    Tensor drows;
    if (dx) drows = all ? dx.slice(begin, end) : empty_like(rows);
    chunks.run(rows, valid.targets.data() + begin, losses.data() + begin, drows, dw);
    dw.accumulate = true;
    if (dx && !all) spread_rows(drows, dx, index);
  }
  CrossEntropy result;
  result.sum = std::accumulate(losses.begin(), losses.end(), 0.0);
  result.valid = count;
  result.loss =
      Tensor::full({1}, x.dtype() == DType::f64 ? DType::f64 : DType::f32, scale * result.sum);
  if (!recording) return result;
  result.loss =
      record("linear_cross_entropy", result.loss, [dx, to = Gradient(x)](const Tensor& upstream) {
        double seed = upstream.to_doubles()[0];
        check(seed == 1.0,
              "linear_cross_entropy: backward must start at the loss with "
              "gradient 1, not {}; put factors into `scale`",
              seed);
        if (dx) to.add(dx);
      });
  return result;
}

Tensor logits(const Tensor& x, const Tensor& w) {
  check(w.shape().rank() == 2 && x.cols() == w.dim(1), "logits: x has {} columns, the weight is {}",
        x.cols(), w.shape());
  Tensor z = matmul({x}, transposed(w), x.dtype() == DType::f64 ? DType::f64 : DType::f32);
  Shape shape = x.shape();
  shape[-1] = w.dim(0);
  return z.reshape(shape);
}

}  // namespace adagate
