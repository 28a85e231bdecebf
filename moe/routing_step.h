// What the MoE layers of one optimizer step gather: the sums behind the balance losses and the
// routing statistics, over all micro-batches and ranks, and the decisions that a second run of the
// same forward pass must repeat.
//
//   step.begin(micro_batches);
//   if (step.needs_counting_pass()) {  // the balance losses look at more than one micro-batch
//     NoRecording off;
//     for (m ..) { step.begin_micro_batch(m); forward(m); }
//     step.reduce(world);
//   }
//   for (m ..) { step.begin_micro_batch(m); forward(m); step.end_forward(world); backward(m); }
//   step.end(world);
//
// The losses, per MoE layer, over all real tokens t of the scope (T of them):
//   balance c E sum_e f_e p_e, p_e the mean probability of expert e; f_e its share of the
//   single-expert tokens (paper), of all assignments (switch); none such: zero;
//   z       c_z mean_t logsumexp(logits_t)^2.
// Their gradients for the tokens of a rank are local, exact and unscaled: summed over ranks and
// micro-batches they are the gradient of the loss, whatever the layout.
#pragma once

#include <cstdint>
#include <vector>

#include "core/ops/routing.h"
#include "layers/token_rows.h"
#include "moe/moe_config.h"
#include "moe/routing_plan.h"
#include "parallel/communicator.h"

namespace adagate {

// Sees every plan once, in order of layers and micro-batches; not when a segment is run again.
class RoutingObserver {
 public:
  virtual ~RoutingObserver() = default;
  // `layer`: place among the MoE layers; `rows` tells which samples the tokens are of. The plan and
  // the rows are gone afterwards.
  virtual void on_plan(int64_t layer, const RoutingPlan& plan, const TokenRows& rows) = 0;
};

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

class RoutingStep {
 public:
  // `balance` with a loss of its own, not `auto`: MoeConfig::resolved_balance(). `blocks`: the
  // transformer block of each layer; empty: 0, 1, ..
  RoutingStep(int64_t layers, int64_t experts, const BalanceConfig& balance,
              std::vector<int64_t> blocks = {});

  // keep_decisions: those of a micro-batch may be asked for again, by a counting pass or by
  // activation checkpointing.
  void begin(int64_t micro_batches, bool keep_decisions = true);
  bool needs_counting_pass() const;
  void begin_micro_batch(int64_t index);
  // Sums what was counted since the last call over the ranks, in one message; balance gradients use
  // it from now on. Collective.
  void reduce(Communicator& world);
  // After the forward pass of each micro-batch: reduces where the losses need it now. Collective.
  void end_forward(Communicator& world);
  // Reduces what has not been. Collective.
  void end(Communicator& world);

  // Statistics and losses of the step, over all ranks; final after end().
  int64_t layers() const { return layers_; }
  int64_t experts() const { return experts_; }
  LayerRouting layer(int64_t layer) const;
  double auxiliary_loss() const;  // of all layers

  void set_observer(RoutingObserver* observer) { observer_ = observer; }
  RoutingObserver* observer() const { return observer_; }

  // For the MoE layers.
  bool losses_active() const {
    return layers_ > 0 && (balance_.coefficient > 0 || balance_.z_coefficient > 0);
  }
  // The forward pass under way has been run before: nothing is counted, decisions are repeated.
  bool replays() const { return counted_ || recomputing(); }
  void count(int64_t layer, const RoutingSums& sums);
  // `rows`: assignments that this rank's experts work on.
  void count_exchange(int64_t layer, int64_t rows, int64_t rows_sent, int64_t bytes_sent,
                      double flops);
  void keep(int64_t layer, const Selection& selection);
  const Selection& selection(int64_t layer) const;
  // Throws Error before the counts have been reduced.
  RoutingLossGradient loss_gradient(int64_t layer) const;

 private:
  bool per_micro_batch() const { return balance_.scope == "micro_batch"; }
  int64_t stride() const;
  LayerRouting unpack(const std::vector<double>& sums, int64_t layer) const;
  // Share of each expert that the loss multiplies its mean probability with; empty: no loss.
  std::vector<double> load_shares(const RoutingSums& sums) const;
  double micro_batch_share() const;  // factor of each reduced scope's loss

  int64_t layers_, experts_;
  BalanceConfig balance_;
  std::vector<int64_t> blocks_;  // [layers]
  RoutingObserver* observer_ = nullptr;
  int64_t micro_batches_ = 1, micro_batch_ = 0;
  bool counted_ = false;  // by a counting pass
  bool pending_ = false;  // something was counted since the last reduce()
  bool reduced_ = false;
  // [layers * stride()]: counted here and not reduced; the scope of the losses; the whole step.
  std::vector<double> local_, scope_, total_;
  std::vector<double> balance_loss_, z_loss_;  // [layers]
  std::vector<double> local_rows_;             // [layers], of this rank, not reduced
  std::vector<double> rank_rows_;              // [layers * ranks], of the whole step
  std::vector<Selection> kept_;                // [micro_batches * layers], or none
};

}  // namespace adagate
