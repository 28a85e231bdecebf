#include "bench/kernel_bench.h"

#include <fmt/format.h>
#include <functional>

#include "bench/timing.h"
#include "core/base/rng.h"
#include "core/ops/adamw_update.h"
#include "core/ops/attention.h"
#include "core/ops/bias_activation.h"
#include "core/ops/dropout.h"
#include "core/ops/embedding.h"
#include "core/ops/grouped_linear.h"
#include "core/ops/linear_cross_entropy.h"
#include "core/ops/matmul.h"
#include "core/ops/norm.h"

namespace adagate {
namespace {

Tensor random_values(const Shape& shape, double deviation) {
  Tensor x = Tensor::empty(shape, DType::f32);
  Rng rng(11, RngStream::test, static_cast<uint64_t>(x.numel()));
  auto* values = x.data<float>();
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < x.numel(); ++i) {
    values[i] = static_cast<float>(deviation) * (2 * rng.uniform(static_cast<uint64_t>(i)) - 1);
  }
  return x;
}

Tensor random_ids(int64_t n, int64_t below) {
  Tensor ids = Tensor::empty({n}, DType::i32);
  Rng rng(13, RngStream::test);
  for (int64_t i = 0; i < n; ++i) {
    ids.data<int32_t>()[i] = static_cast<int32_t>(rng.at(static_cast<uint64_t>(i))[0] % below);
  }
  return ids;
}

class KernelBench {
 public:
  KernelBench(const BenchOptions& options, const MachinePeaks& peaks, DType type, BenchTable& table)
      : o_(options), peaks_(peaks), type_(type), size_(size_of(type)), table_(table) {}

  void run() {
    products();
    experts();
    activations();
    norms();
    attention_lines();
    embedding_lines();
    loss();
    if (type_ == DType::f32) optimizer();
  }

 private:
  Tensor random_tensor(const Shape& shape, DType type, double deviation = 1.0) const {
    return random_values(shape, deviation).to(o_.device).to(type);
  }
  Tensor empty(const Shape& shape, DType type) const {
    return Tensor::empty(shape, type, o_.device);
  }

  using Function = std::function<Tensor(const std::vector<Tensor>&)>;

  void line(const std::string& name, double flops, double bytes, BenchTime time) {
    double limit = peaks_.limit(type_, flops, bytes);
    BenchTable::Cell gflops, gbytes;
    if (flops > 0) gflops = flops / time.median / 1e9;
    if (bytes > 0) gbytes = bytes / time.median / 1e9;
    bool compute = flops / peaks_.flops(type_) >= limit;
    table_.add({name, std::string(name_of(type_)), time.median * 1e3, time.best * 1e3, gflops,
                gbytes, compute ? "compute" : "memory", 100 * limit / time.median});
  }

  void call(const std::string& name, double flops, double bytes,
            const std::function<void()>& work) {
    line(name, flops, bytes, bench_call(o_.seconds, o_.device, work));
  }

  // Forward of `function`, then its backward alone, with gradients for the inputs: for the first
  // in its own type, for the others in fixed f32 buffers, as parameters have them.
  void op(const std::string& name, std::vector<Tensor> inputs, const Function& function,
          double flops, double bytes, double backward_flops, double backward_bytes) {
    call(name, flops, bytes, [&] { function(inputs); });
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (!is_floating(inputs[i].dtype())) continue;
      inputs[i].set_slot(i == 0 ? std::make_shared<GradSlot>()
                                : std::make_shared<GradSlot>(empty(inputs[i].shape(), DType::f32)));
    }
    Tensor dy;
    line(name + ", backward", backward_flops, backward_bytes, bench_repeat(o_.seconds, [&] {
           Tape tape;
           Tensor y;
           {
             Recording on(tape);
             y = function(inputs);
           }
           if (!dy) dy = random_tensor(y.shape(), y.dtype());
           synchronize(o_.device);
           double start = bench_now();
           tape.backward(y, dy);
           synchronize(o_.device);
           double seconds = bench_now() - start;
           for (Tensor& x : inputs)
             if (x.requires_grad()) x.slot()->clear();
           return seconds;
         }));
  }

  void product(int64_t rows, int64_t in, int64_t out) {
    Tensor x = random_tensor({rows, in}, type_), w = random_tensor({in, out}, type_);
    Tensor y = empty({rows, out}, type_), dx = empty({rows, in}, type_);
    Tensor dw = empty({in, out}, DType::f32);
    double flops = 2.0 * static_cast<double>(rows * in * out);
    double values = static_cast<double>(rows * (in + out)), weights = static_cast<double>(in * out);
    double bytes = size_ * (values + weights);
    auto name = [&](const char* what) {
      return fmt::format("{} {} x {} x {}", what, rows, in, out);
    };
    call(name("linear"), flops, bytes, [&] { matmul_into(y, {x}, {w}); });
    call(name("linear dX"), flops, bytes, [&] { matmul_into(dx, {y}, transposed(w)); });
    call(name("linear dW"), flops, size_ * values + 4 * weights,
         [&] { matmul_into(dw, transposed(x), {y}); });
  }

  void products() {
    product(o_.tokens, o_.width, o_.hidden);
    product(o_.tokens, o_.hidden, o_.width);
    product(o_.tokens, o_.width, 3 * o_.width);
    for (int64_t rows : {256, 64, 16}) product(rows, o_.width, o_.hidden);
  }

  void experts() {
    for (int64_t count : {8, 64}) {
      std::vector<int64_t> ends;
      for (int64_t g = 0; g <= count; ++g) ends.push_back(o_.tokens * g / count);
      GroupOffsets offsets(std::move(ends), o_.device);
      double flops = 2.0 * static_cast<double>(o_.tokens * o_.width * o_.hidden);
      double values = size_ * static_cast<double>(o_.tokens * (o_.width + o_.hidden));
      double weights = static_cast<double>(count * o_.width * o_.hidden);
      op(
          fmt::format("products of {} experts", count),
          {random_tensor({o_.tokens, o_.width}, type_),
           random_tensor({count, o_.width, o_.hidden}, type_)},
          [&](const std::vector<Tensor>& in) { return grouped_linear(in[0], in[1], offsets); },
          flops, values + size_ * weights, 2 * flops, 2 * values + (size_ + 4) * weights);
    }
  }

  void activations() {
    double n = static_cast<double>(o_.tokens * o_.hidden);
    for (Activation a : {Activation::gelu, Activation::gelu_erf, Activation::swiglu}) {
      bool gated = a == Activation::swiglu;
      int64_t cols = gated ? 2 * o_.hidden : o_.hidden;
      double in = gated ? 2 * n : n;
      op(
          fmt::format("bias + {}", name_of(a)),
          {random_tensor({o_.tokens, cols}, type_), random_tensor({cols}, type_)},
          [a](const std::vector<Tensor>& x) { return bias_activation(x[0], x[1], a); }, 0,
          size_ * (in + n), 0, size_ * (2 * in + n));
    }
  }

  void norms() {
    double n = static_cast<double>(o_.tokens * o_.width) * size_;
    Shape shape{o_.tokens, o_.width};
    Tensor x = random_tensor(shape, type_), gamma = random_tensor({o_.width}, DType::f32);
    op(
        "layer norm", {x, gamma, gamma.clone()},
        [](const std::vector<Tensor>& in) { return layer_norm(in[0], in[1], in[2], 1e-5); }, 0,
        2 * n, 0, 3 * n);
    op(
        "RMS norm", {x, gamma},
        [](const std::vector<Tensor>& in) { return rms_norm(in[0], in[1], 1e-5); }, 0, 2 * n, 0,
        3 * n);
    Tensor rows = Tensor::empty({o_.tokens}, DType::i64);
    for (int64_t r = 0; r < o_.tokens; ++r) rows.data<int64_t>()[r] = r;
    rows = rows.to(o_.device);
    DropoutSite site{Rng(1, RngStream::dropout), 0.1};
    op(
        "bias + dropout + residual", {x, random_tensor({o_.width}, type_)},
        [=](const std::vector<Tensor>& in) {
          return bias_dropout_add(in[0], in[1], x, site, rows);
        },
        0, 3 * n, 0, 2 * n);
  }

  void attention_lines() {
    int64_t batch = std::max<int64_t>(1, o_.tokens / o_.context);
    AttentionShape shape{.batch = batch,
                         .sequence = o_.context,
                         .heads = o_.heads,
                         .kv_heads = o_.heads,
                         .head_dim = o_.width / o_.heads};
    double rows = static_cast<double>(batch * o_.context), width = static_cast<double>(o_.width);
    // Scores and values of the positions that causality leaves.
    double flops = 4.0 * rows * static_cast<double>(o_.context + 1) / 2 * width;
    double n = rows * width * size_;
    op(
        fmt::format("attention, context {}", o_.context),
        {random_tensor({batch * o_.context, 3 * o_.width}, type_)},
        [=](const std::vector<Tensor>& in) { return attention(in[0], shape, {}, {}, {}); }, flops,
        4 * n, 2.5 * flops, 8 * n);
  }

  void embedding_lines() {
    double n = static_cast<double>(o_.tokens * o_.width) * size_;
    Tensor ids = random_ids(o_.tokens, o_.vocabulary).to(o_.device);
    Tensor table = random_tensor({o_.vocabulary, o_.width}, type_);
    call("embedding", 0, 2 * n, [&] { embedding(ids, table, {}, {}); });
  }

  void loss() {
    for (int64_t vocabulary : {o_.vocabulary, int64_t{8192}}) {
      Tensor x = random_tensor({o_.tokens, o_.width}, type_);
      Tensor w = random_tensor({vocabulary, o_.width}, type_, 0.02);
      LossTargets targets =
          loss_targets(random_ids(o_.tokens, vocabulary).to_host<int32_t>(), vocabulary, o_.device);
      x.set_slot(std::make_shared<GradSlot>());
      w.set_slot(std::make_shared<GradSlot>(empty(w.shape(), DType::f32)));
      double flops = 6.0 * static_cast<double>(o_.tokens * o_.width * vocabulary);
      double weights = static_cast<double>(vocabulary * o_.width);
      call(fmt::format("loss and its gradients, vocabulary {}", vocabulary), flops,
           (2 * size_ + 4) * weights, [&] {
             Tape tape;
             Recording on(tape);
             linear_cross_entropy(x, w, targets, 1.0);
             w.slot()->clear();
           });
    }
  }

  void optimizer() {
    int64_t n = (o_.vocabulary + 12 * o_.width * 6) * o_.width;
    Tensor value = random_tensor({n}, DType::f32), grad = random_tensor({n}, DType::f32);
    Tensor m = Tensor::zeros({n}, DType::f32, o_.device);
    Tensor v = Tensor::zeros({n}, DType::f32, o_.device);
    Tensor copy = empty({n}, DType::bf16), squares = empty({1}, DType::f64);
    double count = static_cast<double>(n);
    AdamWArgs args{.value = value.raw(),
                   .gradient = grad.raw(),
                   .m = m.raw(),
                   .v = v.raw(),
                   .compute = copy.raw(),
                   .n = n,
                   .factors = {.gradient = 1,
                               .beta1 = 0.9,
                               .beta2 = 0.95,
                               .new1 = 0.1,
                               .new2 = 0.05,
                               .rate = 1e-4,
                               .root = 1,
                               .epsilon = 1e-8,
                               .shrink = 1},
                   .dtype = DType::f32};
    std::string size = fmt::format("{:.1f} M parameters", count / 1e6);
    call("AdamW with bf16 copy, " + size, 0, 30 * count, [&] { launch_on(o_.device, args); });
    call("sum of squares, " + size, 0, 4 * count, [&] { sum_of_squares(grad, squares); });
  }

  const BenchOptions& o_;
  const MachinePeaks& peaks_;
  DType type_;
  double size_;
  BenchTable& table_;
};

}  // namespace

BenchTable bench_kernels(const BenchOptions& options, const MachinePeaks& peaks) {
  BenchTable table("kernels",
                   fmt::format("Kernels: {} tokens, width {}, hidden {}, on {}", options.tokens,
                               options.width, options.hidden, peaks.machine),
                   {{"kernel", "kernel"},
                    {"type", "type"},
                    {"ms", "ms", 3},
                    {"best_ms", "best", 3},
                    {"gflops", "GFLOP/s", 0},
                    {"gbytes", "GB/s", 1},
                    {"bound", "limit"},
                    {"percent_of_limit", "% of limit", 0}});
  for (DType type : options.types) KernelBench(options, peaks, type, table).run();
  return table;
}

}  // namespace adagate
