// Every kernel of a training step against its roofline.
#pragma once

#include <string>
#include <vector>

#include "bench/peaks.h"

namespace adagate {

struct BenchOptions {
  int64_t tokens = 2048, context = 256, width = 384, hidden = 1536, heads = 6;
  int64_t vocabulary = 50257;
  int64_t rounds = 15;   // of lines that all ranks run together
  double seconds = 0.2;  // for each other line
  std::vector<DType> types = {DType::f32, DType::bf16};
  Device device = {};
};

// "of limit" is the least time that the work can take (operations over peak, bytes over bandwidth
// for that footprint, the larger) over the median time.
BenchTable bench_kernels(const BenchOptions& options, const MachinePeaks& peaks);

}  // namespace adagate
