// Elementwise arithmetic on the CPU. Work per thread: one contiguous share; bytes per element: each
// operand once. The sum goes by fixed chunks, so it does not depend on the number of threads.
#include "core/ops/elementwise.h"

#include <algorithm>

#include "core/ops/cpu/vector_functions.h"

namespace adagate {
namespace {

constexpr int64_t kParallelFrom = 1 << 14;  // elements that pay for waking the other threads

// y (+)= f(place, lanes).
template <class T, class F>
void write_each(T* y, int64_t n, bool accumulate, F f) {
  constexpr int64_t kShare = 1 << 13;  // a multiple of all vectors
#pragma omp parallel for schedule(static) if (n > kParallelFrom)
  for (int64_t begin = 0; begin < n; begin += kShare) {
    for_each_vector<Compute<T>>(std::min(kShare, n - begin), [=](int64_t i, auto lanes) {
      auto value = f(begin + i, lanes);
      if (accumulate) value += lanes.load(y + begin + i);
      lanes.store(y + begin + i, value);
    });
  }
}

}  // namespace

void launch(CpuStream&, const ElementwiseArgs& args) {
  visit_floating(args.dtype, [&](auto type) {
    using T = decltype(type);
    const T* a = static_cast<const T*>(args.a);
    const T* b = static_cast<const T*>(args.b);
    T* y = static_cast<T*>(args.y);
    const auto factor = static_cast<Compute<T>>(args.factor);
    switch (args.kind) {
      case Elementwise::add:
        return write_each(y, args.n, args.accumulate, [=](int64_t i, auto lanes) {
          return lanes.load(a + i) + lanes.load(b + i);
        });
      case Elementwise::mul:
        return write_each(y, args.n, args.accumulate, [=](int64_t i, auto lanes) {
          return lanes.load(a + i) * lanes.load(b + i);
        });
      case Elementwise::scale:
        return write_each(y, args.n, args.accumulate,
                          [=](int64_t i, auto lanes) { return lanes.load(a + i) * factor; });
    }
  });
}

void launch(CpuStream&, const SumArgs& args) {
  constexpr int64_t kChunk = 4096;
  const int64_t chunks = (args.n + kChunk - 1) / kChunk;
  Tensor partial = Tensor::empty({chunks}, DType::f64);
  double* sums = partial.data<double>();
  visit_floating(args.dtype, [&](auto type) {
    using T = decltype(type);
    const T* x = static_cast<const T*>(args.x);
#pragma omp parallel for schedule(static) if (args.n > kParallelFrom)
    for (int64_t k = 0; k < chunks; ++k) {
      const int64_t end = std::min(args.n, (k + 1) * kChunk);
      double sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t i = k * kChunk; i < end; ++i) sum += static_cast<double>(x[i]);
      sums[k] = sum;
    }
    double sum = 0;
    for (int64_t k = 0; k < chunks; ++k) sum += sums[k];
    *static_cast<Compute<T>*>(args.y) = static_cast<Compute<T>>(sum);
  });
}

void launch(CpuStream&, const BroadcastArgs& args) {
  visit_floating(args.dtype, [&](auto type) {
    using T = decltype(type);
    const Compute<T> dy = *static_cast<const Compute<T>*>(args.dy);
    write_each(static_cast<T*>(args.dx), args.n, args.accumulate,
               [=](int64_t, auto) { return broadcast(dy); });
  });
}

}  // namespace adagate
