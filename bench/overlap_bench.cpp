#include "bench/overlap_bench.h"

#include <algorithm>
#include <fmt/format.h>

#include "bench/timing.h"
#include "core/ops/matmul.h"
#include "parallel/gradient_reducer.h"

namespace adagate {
namespace {

struct Times {
  double all = 0, exposed = 0;
};

class Overlap {
 public:
  Overlap(Communicator& world, const BenchOptions& o, int64_t elements)
      : world_(world),
        elements_(elements),
        flat_(allocate_gradient(world, elements, DType::f32)),
        x_(Tensor::full({o.tokens, o.width}, DType::f32, 0.01)),
        dy_(Tensor::full({o.tokens, o.hidden}, DType::f32, 0.01)),
        w_(Tensor::full({o.width, o.hidden}, DType::f32, 0.01)),
        dw_(Tensor::empty({o.width, o.hidden}, DType::f32)),
        dx_(Tensor::empty({o.tokens, o.width}, DType::f32)),
        reducer_(world, flat_, even_buckets(elements, kGradientBucketElements)) {}

  // A layer's gradients at a time, from the buffer's end, by two products, as backward does.
  Times run(bool products, bool reduction) {
    world_.barrier();
    double start = bench_now();
    for (int64_t last = elements_; last > 0; last -= dw_.numel()) {
      if (products) {
        matmul_into(dw_, transposed(x_), {dy_});
        matmul_into(dx_, {dy_}, transposed(w_));
      }
      if (reduction) reducer_.ready(std::max<int64_t>(0, last - dw_.numel()), last);
    }
    double before = bench_now();
    if (reduction) reducer_.finish();
    double end = bench_now();
    return {end - start, end - before};
  }

 private:
  Communicator& world_;
  int64_t elements_;
  Tensor flat_, x_, dy_, w_, dw_, dx_;
  GradientReducer reducer_;
};

// The medians of all and the least exposed: above that, ranks wait for each other, not for sums.
// Two rounds more to warm up.
Times times_of(Overlap& overlap, int64_t rounds, bool products, bool reduction) {
  std::vector<double> all, exposed;
  for (int64_t round = -2; round < rounds; ++round) {
    Times t = overlap.run(products, reduction);
    if (round < 0) continue;
    all.push_back(t.all);
    exposed.push_back(t.exposed);
  }
  return {bench_time_of(std::move(all)).median, bench_time_of(std::move(exposed)).best};
}

}  // namespace

BenchTable bench_overlap(Communicator& world, const BenchOptions& options) {
  BenchTable table(
      "overlap",
      fmt::format("Gradients of {} rank(s) ({}) reduced while products make them: {} "
                  "tokens, layers of {} x {}",
                  world.size(), world.name(), options.tokens, options.width, options.hidden),
      {{"mib", "MiB", 0},
       {"reduction_ms", "reduction ms"},
       {"products_ms", "products ms"},
       {"together_ms", "together ms"},
       {"exposed_ms", "exposed ms"},
       {"hidden_percent", "hidden %", 0}});
  for (int64_t bytes : {int64_t{16} << 20, int64_t{64} << 20}) {
    Overlap overlap(world, options, bytes / static_cast<int64_t>(sizeof(float)));
    double reduction = times_of(overlap, options.rounds, false, true).all;
    double products = times_of(overlap, options.rounds, true, false).all;
    Times together = times_of(overlap, options.rounds, true, true);
    double hidden = std::max(0.0, 1 - together.exposed / reduction);
    table.add({static_cast<double>(bytes) / (1 << 20), reduction * 1e3, products * 1e3,
               together.all * 1e3, together.exposed * 1e3, hidden * 100});
  }
  return table;
}

}  // namespace adagate
