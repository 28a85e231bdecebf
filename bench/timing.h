// Repeated timing on a machine that others use too.
#pragma once

#include <algorithm>
#include <chrono>
#include <vector>

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

// For work without preparation.
template <class F>
BenchTime bench_call(double budget, F&& work) {
  return bench_repeat(budget, [&] {
    double start = bench_now();
    work();
    return bench_now() - start;
  });
}

}  // namespace adagate
