#include "bench/peaks.h"

#include <algorithm>
#include <fmt/format.h>

#include "bench/timing.h"
#include "core/base/counted.h"
#include "core/base/rng.h"
#include "core/base/threads.h"
#include "core/device/backend.h"
#include "core/ops/cpu/matrix_tiles.h"
#include "core/ops/matmul.h"
#include "core/tensor/tensor.h"

namespace adagate {
namespace {

constexpr int64_t kSide = 1024;  // of the products
constexpr int kChains = 12;      // enough independent sums to hide the latency of an FMA
constexpr int64_t kRounds = 100'000;
volatile float g_sink;  // keeps results alive

void fma_rounds() {
  Vec<float> sums[kChains];
  const Vec<float> factor = broadcast(0.999f), addend = broadcast(0.001f);
  for (auto& sum : sums) sum = addend;
  for (int64_t r = 0; r < kRounds; ++r) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) sums[c] = sums[c] * factor + addend;
  }
  float total = 0;
  for (auto& sum : sums) total += sum[0];
  g_sink = total;
}

#if ADAGATE_BF16_PRODUCTS
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
#endif

#if ADAGATE_AMX
constexpr double kFlopsPerTile = 2.0 * 16 * 16 * 32;

void tile_rounds() {
  alignas(64) static const uint32_t zeros[16 * 16] = {};
  const AmxTiles::Session session;
  AmxTiles::load_left<0>(zeros, 16);
  AmxTiles::load_left<1>(zeros, 16);
  AmxTiles::load_right<0>(zeros, 16);
  AmxTiles::load_right<1>(zeros, 16);
  AmxTiles::zero<0, 0>();
  AmxTiles::zero<0, 1>();
  AmxTiles::zero<1, 0>();
  AmxTiles::zero<1, 1>();
  for (int64_t r = 0; r < kRounds; ++r) {
    AmxTiles::add<0, 0>();
    AmxTiles::add<0, 1>();
    AmxTiles::add<1, 0>();
    AmxTiles::add<1, 1>();
  }
}
#endif

// Best rate of `rounds` on all threads at once.
double register_rate(double budget, double flops_per_round, void (*rounds)()) {
  int threads = max_threads();
  BenchTime time = bench_call(budget, {}, [&] {
#pragma omp parallel num_threads(threads)
    rounds();
  });
  return flops_per_round * static_cast<double>(kRounds) * threads / time.best;
}

// Not constant: a GPU clocks higher on values that don't change its wires.
Tensor random_matrix(int64_t n, uint64_t salt) {
  Tensor x = Tensor::empty({n, n}, DType::f32);
  Rng rng(3, RngStream::test, salt);
  auto* values = x.data<float>();
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < n * n; ++i) values[i] = rng.uniform(static_cast<uint64_t>(i)) - 0.5f;
  return x;
}

// Best rate of a product of [n, n] matrices as training does it: the library may know units that
// are not measured above.
double product_rate(double budget, DType type, int64_t n, Device device) {
  Tensor a = random_matrix(n, 1).to(device).to(type), b = random_matrix(n, 2).to(device).to(type);
  Tensor c = Tensor::empty({n, n}, type, device);
  BenchTime time = bench_call(budget, device, [&] { matmul_into(c, {a}, {b}); });
  double side = static_cast<double>(n);
  return 2.0 * side * side * side / time.best;
}

// Best rate of reading alone and of updating in place, whichever moves more.
double memory_rate(double budget, int64_t bytes) {
  int64_t n = bytes / static_cast<int64_t>(sizeof(float));
  Tensor buffer = Tensor::full({n}, DType::f32, 1.0);
  float* x = buffer.data<float>();
  BenchTime update = bench_call(budget / 2, {}, [&] {
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < n; ++i) x[i] = x[i] * 0.5f + 0.5f;
  });
  BenchTime read = bench_call(budget / 2, {}, [&] {
    float sum = 0;
#pragma omp parallel for simd schedule(static) reduction(+ : sum)
    for (int64_t i = 0; i < n; ++i) sum += x[i];
    g_sink = sum;
  });
  return std::max(2.0 * static_cast<double>(bytes) / update.best,
                  static_cast<double>(bytes) / read.best);
}

// Best rate of a copy of so many bytes, read and written.
double copy_rate(double budget, int64_t bytes, Device device) {
  Tensor from = Tensor::full({bytes / 4}, DType::f32, 1.5, device);
  Tensor to = Tensor::empty(from.shape(), DType::f32, device);
  BenchTime time = bench_call(budget, device, [&] { to.copy_from(from); });
  return 2.0 * static_cast<double>(bytes) / time.best;
}

MachinePeaks measure_gpu_peaks(double budget, Device device) {
  MachinePeaks peaks;
  peaks.machine = backend_of(device).facts(device.index).name;
  peaks.f32 = product_rate(budget, DType::f32, 4 * kSide, device);
  peaks.bf16 = product_rate(budget, DType::bf16, 8 * kSide, device);
  peaks.units = {{"f32 product", DType::f32, peaks.f32}, {"bf16 product", DType::bf16, peaks.bf16}};
  for (int64_t mib : {16, 64, 256, 2048})
    peaks.bandwidths.push_back(
        {static_cast<double>(mib << 20), copy_rate(budget, (mib << 20) / 2, device)});
  return peaks;
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

MachinePeaks measure_peaks(double budget, Device device) {
  if (!device.is_cpu()) return measure_gpu_peaks(budget, device);
  MachinePeaks peaks;
  peaks.machine = counted(max_threads(), "thread");
  auto add = [&](const char* name, DType type, double rate) {
    peaks.units.push_back({name, type, rate});
    double& best = type == DType::bf16 ? peaks.bf16 : peaks.f32;
    best = std::max(best, rate);
  };
  add("f32 multiply-add", DType::f32,
      register_rate(budget, 2.0 * kLanes<float> * kChains, fma_rounds));
  add("f32 product", DType::f32, product_rate(budget, DType::f32, kSide, {}));
#if ADAGATE_BF16_PRODUCTS
  add("bf16 dot product", DType::bf16,
      register_rate(budget, 4.0 * kLanes<float> * kChains, dot_rounds));
#endif
#if ADAGATE_AMX
  if (matrix_tiles() == MatrixTiles::amx)
    add("bf16 matrix tiles", DType::bf16, register_rate(budget, 4 * kFlopsPerTile, tile_rounds));
#endif
  add("bf16 product", DType::bf16, product_rate(budget, DType::bf16, kSide, {}));
  // Without an instruction of their own bf16 products may run through f32.
  peaks.bf16 = std::max(peaks.bf16, peaks.f32);
  for (int64_t mib : {1, 4, 16, 64, 256}) {
    peaks.bandwidths.push_back({static_cast<double>(mib << 20), memory_rate(budget, mib << 20)});
  }
  return peaks;
}

BenchTable table_of(const MachinePeaks& peaks) {
  BenchTable table("peaks", fmt::format("Limits of this machine: {}", peaks.machine),
                   {{"what", "what"}, {"gflops", "GFLOP/s", 0}, {"gbytes", "GB/s", 1}});
  for (auto& unit : peaks.units) table.add({unit.name, unit.rate / 1e9, {}});
  for (auto& b : peaks.bandwidths) {
    table.add({fmt::format("memory, {:.0f} MiB", b.bytes / 1048576), {}, b.rate / 1e9});
  }
  return table;
}

}  // namespace adagate
