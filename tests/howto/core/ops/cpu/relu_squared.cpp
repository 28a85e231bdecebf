// Squared rectifier on the CPU. Work per thread: one contiguous share; bytes per element: x and y,
// in backward x, dy and dx.
#include "core/ops/relu_squared.h"

#include <algorithm>

namespace adagate {
namespace {

constexpr int64_t kParallelFrom = 1 << 14;  // elements that pay for waking the other threads

}  // namespace

void launch(CpuStream&, const ReluSquaredArgs& args) {
  visit_floating(args.dtype, [&](auto type) {
    using T = decltype(type);
    using C = Compute<T>;
    const T* x = static_cast<const T*>(args.x);
    T* y = static_cast<T*>(args.y);
#pragma omp parallel for simd schedule(static) if (args.n > kParallelFrom)
    for (int64_t i = 0; i < args.n; ++i) {
      C positive = std::max(static_cast<C>(x[i]), C(0));
      y[i] = T(positive * positive);
    }
  });
}

void launch(CpuStream&, const ReluSquaredBackwardArgs& args) {
  visit_floating(args.dtype, [&](auto type) {
    using T = decltype(type);
    using C = Compute<T>;
    const T* x = static_cast<const T*>(args.x);
    const T* dy = static_cast<const T*>(args.dy);
    T* dx = static_cast<T*>(args.dx);
#pragma omp parallel for simd schedule(static) if (args.n > kParallelFrom)
    for (int64_t i = 0; i < args.n; ++i) {
      C before = args.accumulate ? static_cast<C>(dx[i]) : C(0);
      dx[i] = T(before + 2 * std::max(static_cast<C>(x[i]), C(0)) * static_cast<C>(dy[i]));
    }
  });
}

}  // namespace adagate
