// What is done with the flat buffers of all parameter groups, however many there are: each group's
// gradient is summed over the ranks that hold copies, and every value counts once in a norm.
#pragma once

#include <span>
#include <vector>

#include "core/tensor/tensor.h"
#include "parallel/gradient_reducer.h"
#include "parallel/mesh.h"

namespace adagate {

// This rank's values (or their gradients) of one group.
struct GroupBuffer {
  Tensor data;  // [n], n may be 0
  GroupRanks ranks;
};

// One reducer per buffer, in their order; the buffers should come from ranks.copies->allocate().
std::vector<GradientReducer> make_reducers(std::span<const GroupBuffer> gradients);

// Of each buffer's own values into one of squares, f64 [buffers], on their device.
void sum_squares(std::span<const GroupBuffer> buffers, const Tensor& squares);

// The norm from what the host has read of sum_squares(). Collective.
double norm_from_squares(std::span<const GroupBuffer> buffers, std::span<const double> squares);

// L2 norm of all values of all groups, the same on every rank once the copies agree. Collective.
double norm_over_ranks(std::span<const GroupBuffer> buffers);

}  // namespace adagate
