// One pass over memory: each element is read once from every rank and written once to every rank
// ((n + n) * element size bytes per element). Blocks of kBlock elements keep the running sums in
// L1; the block, not the thread count, is the unit, and elements are independent, so any number of
// threads gives the same bits.
#include "parallel/reduce_kernels.h"

#include <algorithm>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace adagate {
namespace {

constexpr int64_t kBlock = 2048;
constexpr int64_t kThreadedBytes = 1 << 18;  // below this a team costs more than it saves

template <class T>
using Accumulator = std::conditional_t<std::is_same_v<T, bfloat16>, float, T>;

struct Sum {
  template <class A>
  static A apply(A a, A b) {
    return static_cast<A>(a + b);
  }
};
struct Max {
  template <class A>
  static A apply(A a, A b) {
    return b > a || b != b ? b : a;
  }
};
struct Min {
  template <class A>
  static A apply(A a, A b) {
    return b < a || b != b ? b : a;
  }
};

// The common case, two ranks in place: no detour through a block of sums.
template <class T, class Op>
void combine_two(const T* a, const T* b, T* out_a, T* out_b, int64_t count) {
  using A = Accumulator<T>;
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    T value = static_cast<T>(Op::apply(static_cast<A>(a[i]), static_cast<A>(b[i])));
    out_a[i] = value;
    out_b[i] = value;
  }
}

template <class T, class Op>
void combine_block(std::span<const void* const> sources, std::span<void* const> destinations,
                   int64_t first, int64_t count) {
  using A = Accumulator<T>;
  auto source = [&](size_t r) { return static_cast<const T*>(sources[r]) + first; };
  auto destination = [&](size_t r) { return static_cast<T*>(destinations[r]) + first; };
  if (sources.size() == 2 && destinations.size() == 2)
    return combine_two<T, Op>(source(0), source(1), destination(0), destination(1), count);

  alignas(64) A sums[kBlock];
  const T* s = source(0);
  for (int64_t i = 0; i < count; ++i) sums[i] = static_cast<A>(s[i]);
  for (size_t r = 1; r < sources.size(); ++r) {
    s = source(r);
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) sums[i] = Op::apply(sums[i], static_cast<A>(s[i]));
  }
  for (size_t r = 0; r < destinations.size(); ++r) {
    T* d = destination(r);
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) d[i] = static_cast<T>(sums[i]);
  }
}

template <class T, class Op>
void combine(std::span<const void* const> sources, std::span<void* const> destinations,
             int64_t count) {
  auto block_at = [&](int64_t first) {
    combine_block<T, Op>(sources, destinations, first, std::min(kBlock, count - first));
  };
  if (count * static_cast<int64_t>(sizeof(T)) <= kThreadedBytes) {
    for (int64_t first = 0; first < count; first += kBlock) block_at(first);
    return;
  }
#pragma omp parallel for schedule(static)
  for (int64_t first = 0; first < count; first += kBlock) block_at(first);
}

template <class T>
void combine(std::span<const void* const> sources, std::span<void* const> destinations,
             int64_t count, ReduceOp op) {
  switch (op) {
    case ReduceOp::sum:
      return combine<T, Sum>(sources, destinations, count);
    case ReduceOp::max:
      return combine<T, Max>(sources, destinations, count);
    case ReduceOp::min:
      return combine<T, Min>(sources, destinations, count);
  }
}

}  // namespace

void reduce_in_order(std::span<const void* const> sources, std::span<void* const> destinations,
                     int64_t count, DType dtype, ReduceOp op) {
  switch (dtype) {
    case DType::f32:
      return combine<float>(sources, destinations, count, op);
    case DType::bf16:
      return combine<bfloat16>(sources, destinations, count, op);
    case DType::f64:
      return combine<double>(sources, destinations, count, op);
    case DType::i32:
      return combine<int32_t>(sources, destinations, count, op);
    case DType::i64:
      return combine<int64_t>(sources, destinations, count, op);
    case DType::u8:
      return combine<uint8_t>(sources, destinations, count, op);
  }
}

}  // namespace adagate
