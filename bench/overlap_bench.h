// How much of the gradient reduction hides behind backward.
#pragma once

#include "bench/kernel_bench.h"
#include "parallel/communicator.h"

namespace adagate {

// Reduces 16 and 64 MiB of gradients in the trainer's buckets while products as long as backward's
// make them: time of the reduction alone, of the products alone, of both together (medians), and
// "exposed", the least that was left to do after the last product: above that, ranks wait for each
// other. "hidden" is the share of the reduction's own time that is not exposed. Collective.
BenchTable bench_overlap(Communicator& world, const BenchOptions& options);

}  // namespace adagate
