#include "core/ops/attention.h"

#include <cmath>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>

#include "core/autograd/tape.h"

namespace adagate {
namespace {

void check_shape(const char* op, const Tensor& qkv, const AttentionShape& s) {
  check(s.kv_heads > 0 && s.heads % s.kv_heads == 0,
        "{}: {} heads are not a multiple of {} key-value heads", op, s.heads, s.kv_heads);
  const int64_t rows = s.batch * s.sequence, cols = (s.heads + 2 * s.kv_heads) * s.head_dim;
  check(qkv.numel() == rows * cols && qkv.cols() == cols,
        "{}: qkv is {}, [{}, {}] expected for batch {}, sequence {}, {} + 2 x {} heads of {}", op,
        qkv.shape(), rows, cols, s.batch, s.sequence, s.heads, s.kv_heads, s.head_dim);
  check(s.scale >= 0, "{}: the scale of the scores is negative: {}", op, s.scale);
  check(s.rotary_base == 0 || s.head_dim % 2 == 0,
        "{}: rotary positions need an even head dimension, got {}", op, s.head_dim);
}

double scale_of(const AttentionShape& s) {
  return s.scale != 0 ? s.scale : 1.0 / std::sqrt(static_cast<double>(s.head_dim));
}

// Frequencies and angles are rounded to f32 step by step as Transformers does in every precision:
// at late positions the exact angles would differ from those a model was trained with by more than
// all other round-off.
RotaryTable make_rotary_table(double base, int64_t head_dim, int64_t positions) {
  const int64_t half = head_dim / 2;
  std::vector<double> cosines(static_cast<size_t>(positions * half)), sines(cosines.size());
  for (int64_t i = 0; i < half; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    const float frequency =
        1.0f / static_cast<float>(std::pow(base, static_cast<double>(exponent)));
    for (int64_t t = 0; t < positions; ++t) {
      const float angle = static_cast<float>(t) * frequency;
      cosines[static_cast<size_t>(t * half + i)] = std::cos(static_cast<double>(angle));
      sines[static_cast<size_t>(t * half + i)] = std::sin(static_cast<double>(angle));
    }
  }
  Shape shape{positions, half};
  return {Tensor::from(std::span<const double>(cosines), shape),
          Tensor::from(std::span<const double>(sines), shape)};
}

}  // namespace

RotaryTable rotary_table(double base, int64_t head_dim, int64_t positions, DType dtype,
                         Device device) {
  static std::mutex mutex;
  static std::map<std::tuple<double, int64_t, DType, DeviceKind, int>, RotaryTable> tables;
  std::lock_guard lock(mutex);
  RotaryTable& table = tables[{base, head_dim, dtype, device.kind, device.index}];
  if (!table.cosines || table.cosines.dim(0) < positions) {
    // Growing by powers of two: generation asks for one more position at each step.
    int64_t rows = 64;
    while (rows < positions) rows *= 2;
    RotaryTable exact = make_rotary_table(base, head_dim, rows);
    table = {exact.cosines.to(dtype).to(device), exact.sines.to(dtype).to(device)};
  }
  return table;
}

Tensor attention(const Tensor& qkv, const AttentionShape& shape, const Tensor& lengths,
                 const DropoutSite& site, const Tensor& row_ids) {
  check_shape("attention", qkv, shape);
  const int64_t rows = shape.batch * shape.sequence;
  check_dropout("attention", site, row_ids, rows);
  check(!lengths || (lengths.numel() == shape.batch && lengths.dtype() == DType::i32),
        "attention: lengths is {} {}, i32 [{}] expected", name_of(lengths.dtype()), lengths.shape(),
        shape.batch);
  const DType stats = compute_dtype(qkv.dtype());
  RotaryTable rotary;
  if (shape.rotary_base != 0)
    rotary = rotary_table(shape.rotary_base, shape.head_dim, shape.sequence, stats, qkv.device());
  Tensor output = Tensor::empty({rows, shape.heads * shape.head_dim}, qkv.dtype(), qkv.device());
  Tensor lse = Tensor::empty({shape.batch, shape.heads, shape.sequence}, stats, qkv.device());
  AttentionArgs args{.qkv = qkv.raw(),
                     .output = output.raw(),
                     .lse = lse.raw(),
                     .lengths = lengths.data<int32_t>(),
                     .row_ids = site.active() ? row_ids.data<int64_t>() : nullptr,
                     .cosines = rotary.cosines.raw(),
                     .sines = rotary.sines.raw(),
                     .batch = shape.batch,
                     .sequence = shape.sequence,
                     .heads = shape.heads,
                     .kv_heads = shape.kv_heads,
                     .head_dim = shape.head_dim,
                     .causal = shape.causal,
                     .scale = scale_of(shape),
                     .rng = site.rng,
                     .mask = DropoutMask(site.probability),
                     .dtype = qkv.dtype()};
  launch_on(qkv.device(), args);
  if (!tape_needs({&qkv})) return output;
  // The tensors are captured to keep alive what `args` points to.
  return record("attention", output,
                [args, qkv = qkv.detach(), output = output.detach(), lse, lengths, row_ids, rotary,
                 dqkv = Gradient(qkv)](const Tensor& dy) {
                  if (GradDestination to = dqkv.destination())
                    launch_on(dy.device(), AttentionBackwardArgs{.forward = args,
                                                                 .doutput = dy.raw(),
                                                                 .dqkv = to.tensor.raw(),
                                                                 .accumulate = to.accumulate});
                });
}

namespace {

// Makes room for `rows` more rows of `cols` elements.
void grow(Tensor& t, int64_t length, int64_t rows, int64_t cols, DType dtype, Device device) {
  if (t && t.dim(0) >= length + rows) return;
  int64_t capacity = t ? t.dim(0) : 64;
  while (capacity < length + rows) capacity *= 2;
  Tensor larger = Tensor::empty({capacity, cols}, dtype, device);
  if (length > 0) larger.slice(0, length).copy_from(t.slice(0, length));
  t = larger;
}

}  // namespace

Tensor attention_step(const Tensor& qkv, const AttentionShape& shape, KvCache& cache) {
  check_shape("attention_step", qkv, shape);
  check(shape.batch == 1, "attention_step: takes one sequence, got {}", shape.batch);
  const int64_t cols = shape.kv_heads * shape.head_dim, rows = shape.sequence;
  grow(cache.k, cache.length, rows, cols, qkv.dtype(), qkv.device());
  grow(cache.v, cache.length, rows, cols, qkv.dtype(), qkv.device());
  RotaryTable rotary;
  if (shape.rotary_base != 0)
    rotary = rotary_table(shape.rotary_base, shape.head_dim, cache.length + rows,
                          compute_dtype(qkv.dtype()), qkv.device());
  Tensor output = Tensor::empty({rows, shape.heads * shape.head_dim}, qkv.dtype(), qkv.device());
  launch_on(qkv.device(), AttentionStepArgs{.qkv = qkv.raw(),
                                            .output = output.raw(),
                                            .k = cache.k.raw(),
                                            .v = cache.v.raw(),
                                            .cosines = rotary.cosines.raw(),
                                            .sines = rotary.sines.raw(),
                                            .rows = rows,
                                            .start = cache.length,
                                            .heads = shape.heads,
                                            .kv_heads = shape.kv_heads,
                                            .head_dim = shape.head_dim,
                                            .causal = shape.causal,
                                            .scale = scale_of(shape),
                                            .dtype = qkv.dtype()});
  cache.length += rows;
  return output;
}

}  // namespace adagate
