// Repeated timing on a machine that others use too.
#pragma once

#include <algorithm>
#include <chrono>
#include <vector>

#include "core/device/copy.h"

namespace adagate {

struct BenchTime {
  double median = 0, best = 0;  // seconds
};

inline double bench_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

inline BenchTime bench_time_of(std::vector<double> runs) {
  std::sort(runs.begin(), runs.end());
  return {runs[runs.size() / 2], runs.front()};
}

// `once` does the work and returns the seconds that count. It runs twice to warm up, then for
// `budget` seconds in all, at least three times.
template <class F>
BenchTime bench_repeat(double budget, F&& once) {
  once();
  once();
  std::vector<double> runs;
  for (double start = bench_now(); runs.size() < 3 || bench_now() - start < budget;) {
    runs.push_back(once());
  }
  return bench_time_of(std::move(runs));
}

// For work without preparation, which launches kernels on `device`. Work of a GPU is timed many
// times over at once, so that neither the launch nor the wait for its end counts.
template <class F>
BenchTime bench_call(double budget, Device device, F&& work) {
  constexpr double kLongEnough = 5e-3;
  int64_t times = 1;
  auto once = [&] {
    double start = bench_now();
    for (int64_t i = 0; i < times; ++i) work();
    synchronize(device);
    return (bench_now() - start) / static_cast<double>(times);
  };
  if (!device.is_cpu()) {
    once();
    times = std::clamp<int64_t>(static_cast<int64_t>(kLongEnough / once()), 1, 1000);
  }
  return bench_repeat(budget, once);
}

}  // namespace adagate
