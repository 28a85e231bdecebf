// The MoE layer by phase beside the dense feed-forward of equal active FLOPs.
#pragma once

#include "bench/kernel_bench.h"
#include "parallel/communicator.h"

namespace adagate {

// 8, 16 and 64 experts, balanced and skewed, and the share of single-expert tokens from 0 to 1.
// Collective: with several ranks the experts are spread over all of them, and each has `tokens`
// tokens of its own. Times are this rank's.
BenchTable bench_moe(const BenchOptions& options, const std::shared_ptr<Communicator>& world);

}  // namespace adagate
