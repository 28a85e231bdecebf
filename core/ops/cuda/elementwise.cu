// Elementwise arithmetic: a pack of 16 bytes a thread, every operand read once.
#include "core/ops/cuda/chunk_sums.h"
#include "core/ops/cuda/each_element.h"
#include "core/ops/elementwise.h"

namespace adagate {
namespace {

using namespace cuda;

template <class T, Elementwise kKind>
struct Arithmetic {
  using C = Compute<T>;
  const T *a, *b;
  T* y;
  C factor;
  bool accumulate;

  template <int kWidth>
  __device__ void at(int64_t i) const {
    C value[kWidth], before[kWidth] = {};
    [[maybe_unused]] C other[kWidth];
    load(value, a + i);
    if constexpr (kKind != Elementwise::scale) load(other, b + i);
    if (accumulate) load(before, y + i);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      if constexpr (kKind == Elementwise::add) value[k] += other[k];
      if constexpr (kKind == Elementwise::mul) value[k] *= other[k];
      if constexpr (kKind == Elementwise::scale) value[k] *= factor;
      if (accumulate) value[k] += before[k];
    }
    store(y + i, value);
  }
};

template <class T>
struct Spread {
  using C = Compute<T>;
  const C* dy;
  T* dx;
  bool accumulate;

  template <int kWidth>
  __device__ void at(int64_t i) const {
    C value[kWidth] = {};
    if (accumulate) load(value, dx + i);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) value[k] += *dy;
    store(dx + i, value);
  }
};

template <class T, Elementwise kKind>
void run(CudaStream& stream, const ElementwiseArgs& p) {
  const Arithmetic<T, kKind> arithmetic{static_cast<const T*>(p.a), static_cast<const T*>(p.b),
                                        static_cast<T*>(p.y), static_cast<Compute<T>>(p.factor),
                                        p.accumulate};
  for_each_element<kPack<T>>(stream, p.n, aligned(kPackBytes, p.a, p.b, p.y), arithmetic);
}

}  // namespace

void launch(CudaStream& stream, const ElementwiseArgs& p) {
  visit_floating(p.dtype, [&](auto type) {
    using T = decltype(type);
    switch (p.kind) {
      case Elementwise::add:
        return run<T, Elementwise::add>(stream, p);
      case Elementwise::mul:
        return run<T, Elementwise::mul>(stream, p);
      case Elementwise::scale:
        return run<T, Elementwise::scale>(stream, p);
    }
  });
}

void launch(CudaStream& stream, const SumArgs& p) {
  sum_values(stream, p.x, p.dtype, p.n, false,
             {.scaled = p.y, .scaled_type = compute_dtype(p.dtype)});
}

void launch(CudaStream& stream, const BroadcastArgs& p) {
  visit_floating(p.dtype, [&](auto type) {
    using T = decltype(type);
    const Spread<T> spread{static_cast<const Compute<T>*>(p.dy), static_cast<T*>(p.dx),
                           p.accumulate};
    for_each_element<kPack<T>>(stream, p.n, aligned(kPackBytes, p.dx), spread);
  });
}

}  // namespace adagate
