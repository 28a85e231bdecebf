// What the MoE layers of a step count, summed over its micro-batches and all ranks: the sums behind
// balance losses and statistics.
#pragma once

#include <cstdint>
#include <span>
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

// Sums stay on the device until the host reads them with the step's other figures:
//
//   ledger.add(..); ..; ledger.reduce(world);  // once or more often
//   ledger.read(the host's copies of ledger.unread());
//   std::vector<double> words = ledger.take_words(world);  // what only the host knows
//   .. words are summed over the ranks ..
//   ledger.finish(words);
class RoutingLedger {
 public:
  RoutingLedger(int64_t layers, int64_t experts);

  void clear();
  void add(int64_t layer, const Tensor& sums);  // as routing_sums() returns them, on any device
  void add(int64_t layer, const ExpertWork& work);

  // Sums what the layers have counted since the last call over the ranks, on their device.
  // Collective.
  void reduce(Communicator& world);
  bool reduced() const { return !pending_; }  // nothing was added since
  // What the last reduce() has summed, f64 [layers, routing_sums_size(experts)]; until read().
  const Tensor& last() const { return reduced_.back(); }

  std::vector<Tensor> unread() const;
  // `values`: of unread(). Returns those that reduce() has summed, [layers * routing_sums_size()]
  // for each call.
  std::span<const std::vector<double>> read(std::span<const std::vector<double>> values);
  RoutingSums unpack(const std::vector<double>& sums, int64_t layer) const;
  std::vector<double> take_words(const Communicator& world);
  void finish(std::span<const double> words);

  int64_t layers() const { return layers_; }
  int64_t experts() const { return experts_; }
  // Of all that was added since clear(), over all ranks; without block and losses. What was not
  // yet read and finished is missing.
  LayerRouting total(int64_t layer) const;

 private:
  // One layer's work on this rank, not yet taken.
  struct Work {
    double rows = 0, rows_sent = 0, bytes_sent = 0, flops = 0;
    double flops_per_row = 0;     // of rows that the sums count
    bool rows_of_choice = false;  // see ExpertWork::rows
  };
  bool rows_of_choice() const;
  void add_rows_of_choice(const std::vector<double>& own);

  int64_t layers_, experts_;
  bool pending_ = false;
  Tensor counted_;               // f64 [layers, routing_sums_size()], not yet reduced; empty: none
  std::vector<Tensor> reduced_;  // not yet read, one for each reduce()
  Tensor own_;                   // this rank's part of them; empty: not needed
  std::vector<Work> work_;       // [layers]
  std::vector<double> total_;    // [layers * routing_sums_size()]
  std::vector<double> words_;    // [layers * (kWork + ranks)]
};

}  // namespace adagate
