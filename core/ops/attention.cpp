#include "core/ops/attention.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>

#include "core/autograd/tape.h"

namespace adagate {
namespace {

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
  using Key = std::tuple<double, int64_t, DType, DeviceKind, int>;
  // Never destroyed: at the process's end their device may be gone before them.
  static auto& tables = *new std::map<Key, RotaryTable>;
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

void check_attention_shape(const char* op, const AttentionShape& s) {
  check(s.batch >= 0 && s.sequence >= 0, "{}: {} samples of {} queries", op, s.batch, s.sequence);
  check(s.kv_heads > 0 && s.heads % s.kv_heads == 0,
        "{}: {} heads are not a multiple of {} key-value heads", op, s.heads, s.kv_heads);
  check(s.scale >= 0, "{}: the scale of the scores is negative: {}", op, s.scale);
  check(s.rotary_base == 0 || s.head_dim % 2 == 0,
        "{}: rotary positions need an even head dimension, got {}", op, s.head_dim);
}

void check_packed_qkv(const char* op, const Tensor& qkv, const AttentionShape& s) {
  check_attention_shape(op, s);
  const int64_t rows = s.batch * s.sequence, cols = (s.heads + 2 * s.kv_heads) * s.head_dim;
  check(qkv.numel() == rows * cols && qkv.cols() == cols,
        "{}: qkv is {}, [{}, {}] expected for batch {}, sequence {}, {} + 2 x {} heads of {}", op,
        qkv.shape(), rows, cols, s.batch, s.sequence, s.heads, s.kv_heads, s.head_dim);
}

void check_columns(const char* op, const char* name, const HeadColumns& columns, int64_t width) {
  check(columns.first >= 0 && columns.first + width <= columns.rows.cols(),
        "{}: {} takes the columns [{}, {}) of {}", op, name, columns.first, columns.first + width,
        columns.rows.shape());
}

HeadsView heads_view(const HeadColumns& columns, int64_t samples) {
  const Tensor& t = columns.rows;
  auto* data = static_cast<std::byte*>(t.raw());
  if (data) data += static_cast<size_t>(columns.first) * size_of(t.dtype());
  return {data, t.cols(), samples > 0 ? t.numel() / samples : 0};
}

namespace {

int64_t positions_of(const AttentionShape& shape, int64_t keys) {
  return std::max(shape.sequence, keys);
}

}  // namespace

RotaryTable attention_rotary(const AttentionShape& shape, int64_t keys, DType type, Device device) {
  if (shape.rotary_base == 0) return {};
  return rotary_table(shape.rotary_base, shape.head_dim, positions_of(shape, keys),
                      compute_dtype(type), device);
}

AttentionArgs attention_args(const HeadColumns& q, const HeadColumns& k, const HeadColumns& v,
                             const Tensor& output, int64_t keys, const AttentionShape& shape,
                             const AttentionRows& rows, const RotaryTable& rotary) {
  const double scale =
      shape.scale != 0 ? shape.scale : 1.0 / std::sqrt(static_cast<double>(shape.head_dim));
  return {.q = heads_view(q, shape.batch),
          .k = heads_view(k, shape.batch),
          .v = heads_view(v, shape.batch),
          .output = heads_view({output}, shape.batch),
          .lse = nullptr,
          .query_lengths = rows.queries.data<int32_t>(),
          .key_lengths = rows.keys.data<int32_t>(),
          .starts = rows.starts.data<int32_t>(),
          .addresses = nullptr,
          .cosines = rotary.cosines.raw(),
          .sines = rotary.sines.raw(),
          .rotate_keys = true,
          .positions = positions_of(shape, keys),
          .batch = shape.batch,
          .queries = shape.sequence,
          .keys = keys,
          .heads = shape.heads,
          .kv_heads = shape.kv_heads,
          .head_dim = shape.head_dim,
          .causal = shape.causal,
          .scale = scale,
          .rng = {},
          .mask = {},
          .dtype = output.dtype()};
}

namespace {

// Queries, keys and values of one call, each with the number of its columns.
struct Inputs {
  std::array<HeadColumns, 3> columns;
  std::array<int64_t, 3> widths;
};

constexpr std::array<const char*, 3> kInputNames{"q", "k", "v"};

bool of_one_tensor(const HeadColumns& a, const HeadColumns& b) {
  return a.rows.slot() && a.rows.slot() == b.rows.slot();
}

// One for each way in which the columns don't fit; returns the rows of keys of each sample.
int64_t check_inputs(const Inputs& in, const AttentionShape& shape) {
  check_attention_shape("attention", shape);
  std::array<int64_t, 3> rows{};
  for (size_t i = 0; i < 3; ++i) {
    const Tensor& t = in.columns[i].rows;
    const char* name = kInputNames[i];
    check_columns("attention", name, in.columns[i], in.widths[i]);
    check(t.dtype() == in.columns[0].rows.dtype(), "attention: {} is {}, q is {}", name,
          name_of(t.dtype()), name_of(in.columns[0].rows.dtype()));
    check(shape.batch > 0 ? t.rows() % shape.batch == 0 : t.rows() == 0,
          "attention: {} has {} rows for {} samples", name, t.rows(), shape.batch);
    rows[i] = shape.batch > 0 ? t.rows() / shape.batch : 0;
  }
  check(rows[0] == (shape.batch > 0 ? shape.sequence : 0),
        "attention: q has {} rows for {} samples of {} queries", in.columns[0].rows.rows(),
        shape.batch, shape.sequence);
  check(rows[1] == rows[2], "attention: k has {} rows a sample, v has {}", rows[1], rows[2]);
  return rows[1];
}

void check_lengths(const char* what, const Tensor& lengths, int64_t batch) {
  check(!lengths || (lengths.numel() == batch && lengths.dtype() == DType::i32),
        "attention: {} is {} {}, i32 [{}] expected", what, name_of(lengths.dtype()),
        lengths.shape(), batch);
}

// Where the gradients of q, k and v go. Columns of one tensor share the destination of its
// gradient, which is asked for once.
class InputGradients {
 public:
  explicit InputGradients(const Inputs& in) {
    for (size_t i = 0; i < 3; ++i) {
      const HeadColumns& own = in.columns[i];
      Part& part = parts_[i];
      part = {Gradient(own.rows), own.first, i, 0};
      for (size_t j = 3; j-- > 0;) {
        if (!of_one_tensor(own, in.columns[j])) continue;
        check_apart(in, i, j);
        part.owner = std::min(part.owner, j);
        part.left_out -= in.widths[j];
      }
      part.left_out += own.rows.cols();
    }
  }

  std::array<GradDestination, 3> destinations() const {
    std::array<GradDestination, 3> to;
    for (size_t i = 0; i < 3; ++i) {
      to[i] = parts_[i].owner < i ? to[parts_[i].owner] : parts_[i].gradient.destination();
      // Columns that nobody reads: the kernel doesn't write them.
      if (to[i] && !to[i].accumulate && parts_[i].left_out > 0) {
        to[i].tensor.fill(0);
        to[i].accumulate = true;
      }
    }
    return to;
  }

  // Where the gradient of what `of` views stands in its destination.
  HeadsView view(size_t i, const GradDestination& to, const HeadsView& of) const {
    if (!to) return {};
    const HeadsView begin = heads_view({to.tensor, parts_[i].first}, 1);
    return {begin.data, of.row_stride, of.sample_stride};
  }

 private:
  struct Part {
    Gradient gradient;
    int64_t first = 0;
    size_t owner = 0;      // the first of the three that are columns of this tensor
    int64_t left_out = 0;  // columns of the tensor that are none of the three's
  };

  static void check_apart(const Inputs& in, size_t i, size_t j) {
    const int64_t a = in.columns[i].first, b = in.columns[j].first;
    check(i == j || !in.columns[i].rows.requires_grad() || a + in.widths[i] <= b ||
              b + in.widths[j] <= a,
          "attention: {} and {} share columns of one tensor, whose gradient is wanted",
          kInputNames[i], kInputNames[j]);
  }

  std::array<Part, 3> parts_;
};

void backward(const AttentionArgs& forward, const Tensor& dy, const InputGradients& gradients) {
  const auto to = gradients.destinations();
  if (!to[0] && !to[1] && !to[2]) return;
  HeadsView doutput = forward.output;
  doutput.data = dy.raw();
  launch_on(dy.device(), AttentionBackwardArgs{.forward = forward,
                                               .doutput = doutput,
                                               .dq = gradients.view(0, to[0], forward.q),
                                               .dk = gradients.view(1, to[1], forward.k),
                                               .dv = gradients.view(2, to[2], forward.v),
                                               .accumulate_dq = to[0].accumulate,
                                               .accumulate_dk = to[1].accumulate,
                                               .accumulate_dv = to[2].accumulate});
}

}  // namespace

Tensor attention(const HeadColumns& q, const HeadColumns& k, const HeadColumns& v,
                 const AttentionShape& shape, const AttentionRows& rows, const DropoutSite& site,
                 const Tensor& addresses) {
  const int64_t kv_cols = shape.kv_heads * shape.head_dim;
  const Inputs in{{q, k, v}, {shape.heads * shape.head_dim, kv_cols, kv_cols}};
  const int64_t keys = check_inputs(in, shape);
  check_dropout("attention", site, addresses, shape.batch * shape.sequence);
  check_lengths("lengths of queries", rows.queries, shape.batch);
  check_lengths("lengths of keys", rows.keys, shape.batch);
  check_lengths("starts of queries", rows.starts, shape.batch);
  const DType type = q.rows.dtype();
  const Device device = q.rows.device();
  Tensor output =
      Tensor::empty({shape.batch * shape.sequence, shape.heads * shape.head_dim}, type, device);
  Tensor lse =
      Tensor::empty({shape.batch, shape.heads, shape.sequence}, compute_dtype(type), device);
  const RotaryTable rotary = attention_rotary(shape, keys, type, device);
  AttentionArgs args = attention_args(q, k, v, output, keys, shape, rows, rotary);
  args.lse = lse.raw();
  if (site.active()) {
    args.addresses = addresses.data<int64_t>();
    args.rng = site.rng;
    args.mask = DropoutMask(site.probability);
  }
  launch_on(device, args);
  if (!tape_needs({&q.rows, &k.rows, &v.rows})) return output;
  // The tensors are captured to keep alive what `args` points to.
  std::array kept{q.rows.detach(), k.rows.detach(), v.rows.detach(), output.detach(), lse};
  return record("attention", output,
                [args, kept, rows, addresses, rotary, to = InputGradients(in)](const Tensor& dy) {
                  backward(args, dy, to);
                });
}

Tensor attention(const Tensor& qkv, const AttentionShape& shape, const Tensor& lengths,
                 const DropoutSite& site, const Tensor& addresses) {
  check_packed_qkv("attention", qkv, shape);
  const int64_t k = shape.heads * shape.head_dim, v = k + shape.kv_heads * shape.head_dim;
  return attention({qkv, 0}, {qkv, k}, {qkv, v}, shape, {lengths, lengths, {}}, site, addresses);
}

}  // namespace adagate
