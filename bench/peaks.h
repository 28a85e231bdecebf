// What the machine, or a GPU, can do at most, measured in the same run as the kernels, on the CPU
// with all threads of this process: clocks and neighbours change.
#pragma once

#include <string>
#include <vector>

#include "bench/table.h"
#include "core/base/dtype.h"
#include "core/device/device.h"

namespace adagate {

struct MachinePeaks {
  // FLOP/s of the best of what can multiply in that type: the units below.
  double f32 = 0, bf16 = 0;
  // Instructions on registers, and a large product: no kernel should be faster than all of them.
  struct Unit {
    std::string name;
    DType type;
    double rate;  // FLOP/s
  };
  std::vector<Unit> units;
  struct Bandwidth {
    double bytes, rate;  // footprint; bytes read and written per second
  };
  std::vector<Bandwidth> bandwidths;  // by footprint: caches to memory
  std::string machine;                // "2 threads", or the GPU's name

  double flops(DType type) const { return type == DType::bf16 ? bf16 : f32; }
  // The rate for data of this size in all.
  double bandwidth(double bytes) const;
  // Seconds below which nothing with this work can be: of compute and of memory.
  double limit(DType type, double flop_count, double bytes) const;
};

// Takes about `budget` seconds for each of its measurements, about ten.
MachinePeaks measure_peaks(double budget, Device device = {});

BenchTable table_of(const MachinePeaks& peaks);

}  // namespace adagate
