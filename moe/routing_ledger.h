// What the MoE layers of a step count, summed over its micro-batches and all ranks: the sums behind
// balance losses and statistics.
#pragma once

#include <cstdint>
#include <vector>

#include "core/ops/routing.h"
#include "layers/routing_sink.h"
#include "parallel/communicator.h"

namespace adagate {

// One MoE layer's step.
struct LayerRouting {
  int64_t block = 0;  // the transformer block that it is in
  RoutingSums sums;
  std::vector<double> rank_rows = {};   // [ranks] assignments that the rank's experts worked on
  double rows_sent = 0;                 // assignments whose expert is on another rank
  double bytes_sent = 0;                // to other ranks, dispatch and combine of one forward pass
  double flops = 0;                     // of the gate and the experts, one forward pass
  double balance_loss = 0, z_loss = 0;  // as they enter the total loss

  double assignments() const;
  // Share of the real tokens that took k experts; 0 when there are none.
  double share_with(int64_t k) const;
  double mean_entropy() const { return sums.tokens > 0 ? sums.entropy / sums.tokens : 0; }
};

class RoutingLedger {
 public:
  RoutingLedger(int64_t layers, int64_t experts);

  void clear();
  void add(int64_t layer, const Tensor& sums);  // as routing_sums() returns them, on any device
  void add(int64_t layer, const ExpertWork& work);

  // Sums what was added since the last call over the ranks, in one message; the host reads the sums
  // of all layers at once. Collective.
  void reduce(Communicator& world);
  bool reduced() const { return !pending_; }  // nothing was added since

  int64_t layers() const { return layers_; }
  int64_t experts() const { return experts_; }
  // Over all ranks: what the last reduce() summed, and what all since clear() did together.
  RoutingSums last(int64_t layer) const;
  LayerRouting total(int64_t layer) const;  // without block and losses

 private:
  int64_t stride() const;
  std::vector<double> take_local();
  LayerRouting unpack(const std::vector<double>& sums, int64_t layer) const;

  int64_t layers_, experts_;
  bool pending_ = false;
  Tensor counted_;            // f64 [layers, routing_sums_size()], not yet reduced; empty: none
  std::vector<double> work_;  // [layers * kWork], not yet reduced
  // [layers * stride()]: reduced last; all of it.
  std::vector<double> last_, total_;
  std::vector<double> local_rows_;  // [layers], of this rank, not yet reduced
  std::vector<double> rank_rows_;   // [layers * ranks], all of it
};

}  // namespace adagate
