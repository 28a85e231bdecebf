// First kernel: a block sums a chunk, each thread every 256th pack of it; the number of chunks is
// bounded, so their length grows with n, and is a function of n alone. Second kernel: one block
// adds up the chunks. Every element is read once.
#include <algorithm>

#include "core/ops/cuda/chunk_sums.h"
#include "core/ops/cuda/elements.h"
#include "core/ops/cuda/reduce.h"

namespace adagate::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostChunks = 1024, kShortest = 4096;

template <class T, bool kSquares, int kWidth>
__global__ void __launch_bounds__(kThreads)
    sum_chunks(const T* x, int64_t n, int64_t chunk, double* partial) {
  ADAGATE_SHARED(double, shared, kWarp);
  const int64_t begin = blockIdx.x * chunk, end = begin + chunk < n ? begin + chunk : n;
  double sum = 0;
#pragma unroll 4
  for (int64_t i = begin + threadIdx.x * kWidth; i < end; i += kThreads * kWidth) {
    Compute<T> values[kWidth];
    load_some(values, x + i, static_cast<int>(end - i));
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      const auto value = static_cast<double>(values[k]);
      sum += kSquares ? value * value : value;
    }
  }
  sum = block_sum(sum, shared);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kThreads)
    add_chunks(const double* partial, int chunks, SumTarget to) {
  ADAGATE_SHARED(double, shared, kWarp);
  double sum = 0;
  for (int i = threadIdx.x; i < chunks; i += kThreads) sum += partial[i];
  sum = block_sum(sum, shared);
  if (threadIdx.x != 0) return;
  if (to.sum) *to.sum = sum;
  const double scaled[1] = {to.scale * sum};
  if (to.scaled) store_as(to.scaled_type, to.scaled, 0, scaled);
}

template <class T, bool kSquares>
void sum_chunks_of(CudaStream& stream, const T* x, int64_t n, int64_t chunk, int64_t chunks,
                   double* partial) {
  visit_width<T>(aligned(kPackBytes, x), [&](auto width) {
    ADAGATE_LAUNCH((sum_chunks<T, kSquares, decltype(width)::value>), static_cast<unsigned>(chunks),
                   kThreads, 0, stream, x, n, chunk, partial);
  });
}

}  // namespace

void sum_values(CudaStream& stream, const void* x, DType type, int64_t n, bool squares,
                const SumTarget& to) {
  const int64_t shares = (n + kMostChunks - 1) / kMostChunks;
  const int64_t chunk = std::max<int64_t>(1, (shares + kShortest - 1) / kShortest) * kShortest;
  const int64_t chunks = (n + chunk - 1) / chunk;
  Scratch<double> partial(stream, std::max<int64_t>(1, chunks));
  if (chunks > 0) {
    visit_floating(type, [&](auto t) {
      using T = decltype(t);
      const T* from = static_cast<const T*>(x);
      if (squares) {
        sum_chunks_of<T, true>(stream, from, n, chunk, chunks, partial.data());
      } else {
        sum_chunks_of<T, false>(stream, from, n, chunk, chunks, partial.data());
      }
    });
  }
  ADAGATE_LAUNCH(add_chunks, 1, kThreads, 0, stream, partial.data(), static_cast<int>(chunks), to);
}

}  // namespace adagate::cuda
