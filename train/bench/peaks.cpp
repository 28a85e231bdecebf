#include "train/bench/peaks.h"

#include <algorithm>
#include <fmt/format.h>

#include "core/base/threads.h"
#include "core/tensor/tensor.h"
#include "train/bench/timing.h"

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace adagate {
namespace {

constexpr int kLanes = 16, kChains = 12;  // enough independent sums to hide the latency of an FMA
typedef float Vector __attribute__((vector_size(kLanes * sizeof(float))));

constexpr int64_t kRounds = 100'000;
volatile float g_sink;  // keeps results alive

void fma_rounds() {
  Vector sums[kChains], factor, addend;
  for (int l = 0; l < kLanes; ++l) {
    factor[l] = 0.999f;
    addend[l] = 0.001f;
  }
  for (auto& sum : sums) sum = addend;
  for (int64_t r = 0; r < kRounds; ++r) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) sums[c] = sums[c] * factor + addend;
  }
  float total = 0;
  for (auto& sum : sums) total += sum[0];
  g_sink = total;
}

#ifdef __AVX512BF16__
constexpr bool kBf16Dot = true;
void dot_rounds() {
  __m512 sums[kChains];
  for (auto& sum : sums) sum = _mm512_setzero_ps();
  __m512bh a = _mm512_cvtne2ps_pbh(_mm512_set1_ps(0.5f), _mm512_set1_ps(0.25f));
  for (int64_t r = 0; r < kRounds; ++r) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) sums[c] = _mm512_dpbf16_ps(sums[c], a, a);
  }
  __m512 total = sums[0];
  for (int c = 1; c < kChains; ++c) total = _mm512_add_ps(total, sums[c]);
  g_sink = total[0];
}
#else
constexpr bool kBf16Dot = false;
void dot_rounds() {}
#endif

// Best rate of `rounds` on all threads at once.
double register_rate(double budget, double flops_per_round, void (*rounds)()) {
  int threads = max_threads();
  BenchTime time = bench_call(budget, [&] {
#pragma omp parallel num_threads(threads)
    rounds();
  });
  return flops_per_round * static_cast<double>(kRounds) * threads / time.best;
}

// Best rate of reading alone and of updating in place, whichever moves more.
double memory_rate(double budget, int64_t bytes) {
  int64_t n = bytes / static_cast<int64_t>(sizeof(float));
  Tensor buffer = Tensor::full({n}, DType::f32, 1.0);
  float* x = buffer.data<float>();
  BenchTime update = bench_call(budget / 2, [&] {
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < n; ++i) x[i] = x[i] * 0.5f + 0.5f;
  });
  BenchTime read = bench_call(budget / 2, [&] {
    float sum = 0;
#pragma omp parallel for simd schedule(static) reduction(+ : sum)
    for (int64_t i = 0; i < n; ++i) sum += x[i];
    g_sink = sum;
  });
  return std::max(2.0 * static_cast<double>(bytes) / update.best,
                  static_cast<double>(bytes) / read.best);
}

}  // namespace

double MachinePeaks::bandwidth(double bytes) const {
  for (const Bandwidth& b : bandwidths)
    if (bytes <= b.bytes) return b.rate;
  return bandwidths.back().rate;
}

double MachinePeaks::limit(DType type, double flop_count, double bytes) const {
  return std::max(flop_count / flops(type), bytes / bandwidth(bytes));
}

MachinePeaks measure_peaks(double budget) {
  MachinePeaks peaks;
  peaks.threads = max_threads();
  peaks.f32 = register_rate(budget, 2.0 * kLanes * kChains, fma_rounds);
  // Without the instruction bf16 products run through f32.
  peaks.bf16 = kBf16Dot ? register_rate(budget, 4.0 * kLanes * kChains, dot_rounds) : peaks.f32;
  for (int64_t mib : {1, 4, 16, 64, 256}) {
    peaks.bandwidths.push_back({static_cast<double>(mib << 20), memory_rate(budget, mib << 20)});
  }
  return peaks;
}

BenchTable table_of(const MachinePeaks& peaks) {
  BenchTable table("peaks", fmt::format("Limits of this machine with {} threads", peaks.threads),
                   {{"what", "what"}, {"gflops", "GFLOP/s", 0}, {"gbytes", "GB/s", 1}});
  table.add({"f32 multiply-add", peaks.f32 / 1e9, {}});
  table.add({kBf16Dot ? "bf16 dot product" : "bf16 (no instruction)", peaks.bf16 / 1e9, {}});
  for (auto& b : peaks.bandwidths) {
    table.add({fmt::format("memory, {:.0f} MiB", b.bytes / 1048576), {}, b.rate / 1e9});
  }
  return table;
}

}  // namespace adagate
