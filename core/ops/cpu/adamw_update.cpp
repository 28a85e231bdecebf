// Work per thread: a contiguous run of blocks. Both kernels move every byte once and compute next
// to nothing, so they run at the speed of memory.
#include "core/ops/adamw_update.h"

#include <vector>

#include "core/base/threads.h"

namespace adagate {
namespace {

constexpr int64_t kBlock = 1 << 14;

template <class T, bool with_copy>
void update_block(const AdamWArgs& a, const AdamWFactors<T>& f, int64_t begin, int64_t end) {
  T* value = static_cast<T*>(a.value);
  const T* gradient = static_cast<const T*>(a.gradient);
  T* m = static_cast<T*>(a.m);
  T* v = static_cast<T*>(a.v);
  auto* compute = static_cast<bfloat16*>(a.compute);
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) {
    T mi = m[i], vi = v[i];
    T next = adamw_element(f, value[i], gradient[i], mi, vi);
    m[i] = mi;
    v[i] = vi;
    value[i] = next;
    if constexpr (with_copy) compute[i] = bfloat16(next);
  }
}

template <class T>
void update(const AdamWArgs& a) {
  const auto& d = a.factors;
  AdamWFactors<T> f{T(d.gradient), T(d.beta1), T(d.beta2),   T(d.new1),  T(d.new2),
                    T(d.rate),     T(d.root),  T(d.epsilon), T(d.shrink)};
  int64_t blocks = (a.n + kBlock - 1) / kBlock;
#pragma omp parallel for schedule(static) num_threads(threads_for(a.n))
  for (int64_t b = 0; b < blocks; ++b) {
    int64_t begin = b * kBlock, end = std::min(a.n, begin + kBlock);
    a.compute ? update_block<T, true>(a, f, begin, end) : update_block<T, false>(a, f, begin, end);
  }
}

template <class T>
double block_sum(const T* x, int64_t n) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return sum;
}

template <class T>
double sum(const T* x, int64_t n) {
  int64_t blocks = (n + kBlock - 1) / kBlock;
  std::vector<double> partial(static_cast<size_t>(blocks));
#pragma omp parallel for schedule(static) num_threads(threads_for(n))
  for (int64_t b = 0; b < blocks; ++b) {
    partial[static_cast<size_t>(b)] = block_sum(x + b * kBlock, std::min(kBlock, n - b * kBlock));
  }
  double total = 0;
  for (double p : partial) total += p;
  return total;
}

}  // namespace

void launch(CpuStream&, const AdamWArgs& a) {
  a.dtype == DType::f64 ? update<double>(a) : update<float>(a);
}

void launch(CpuStream&, const SumOfSquaresArgs& a) {
  *a.result = a.dtype == DType::f64 ? sum(static_cast<const double*>(a.x), a.n)
                                    : sum(static_cast<const float*>(a.x), a.n);
}

}  // namespace adagate
