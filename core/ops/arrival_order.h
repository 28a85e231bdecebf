// The order of rows that arrive from several ranks: they come by source and group (expert), and are
// worked on by group.
#pragma once

#include <span>

#include "core/device/launch.h"
#include "core/ops/group_offsets.h"
#include "core/tensor/tensor.h"

namespace adagate {

// Inside a group rows stand by source, in the order in which they came. Both permutations are what
// permute_rows() takes.
struct ArrivalOrder {
  GroupOffsets offsets;  // rows of each group
  Tensor to_sorted;      // i32 [rows]: sorted[i] = arrived[to_sorted[i]]
  Tensor to_arrived;     // i32 [rows], its inverse
};

// counts[s * groups + g]: rows from source s for group g, of `sources` sources. The host has them,
// as it knows the lengths of messages; the permutations are made on the device.
ArrivalOrder arrival_order(std::span<const int64_t> counts, int64_t sources, Device device);

struct ArrivalOrderArgs {
  static constexpr std::string_view kKernel = "arrival_order";
  const int64_t* counts = nullptr;  // [sources * groups]
  int64_t* offsets = nullptr;       // [groups + 1]
  int32_t* to_sorted = nullptr;     // [rows], the sum of counts
  int32_t* to_arrived = nullptr;
  int64_t sources = 0, groups = 0;
};
void launch(CpuStream&, const ArrivalOrderArgs&);
void launch(CudaStream&, const ArrivalOrderArgs&);

}  // namespace adagate
