// The routing of one optimizer step over its micro-batches: counts go to a ledger, the balance
// losses follow from it, choices are kept for runs that must repeat them, observers are told.
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
// What is counted stays on the device until the end, where the host reads it at once. A caller who
// has more to read and to send does what end() does with his own: see there.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "layers/routing_sink.h"
#include "moe/balance_loss.h"
#include "moe/moe_config.h"
#include "moe/routing_ledger.h"
#include "moe/routing_observer.h"
#include "moe/routing_replay.h"
#include "parallel/communicator.h"

namespace adagate {

class RoutingStep final : public RoutingSink {
 public:
  // `balance` with a loss of its own, not `auto`: MoeConfig::resolved_balance(). `blocks`: the
  // transformer block of each layer; empty: 0, 1, ..
  RoutingStep(int64_t layers, int64_t experts, const BalanceConfig& balance,
              std::vector<int64_t> blocks = {});

  // keep_choices: those of a micro-batch may be asked for again, by a counting pass or by a block
  // that is run again in backward.
  void begin(int64_t micro_batches, bool keep_choices = true);
  bool needs_counting_pass() const;
  void begin_micro_batch(int64_t index);
  // Sums what was counted since the last call over the ranks; balance gradients use it from now on.
  // Collective.
  void reduce(Communicator& world);
  // After the forward pass of each micro-batch: reduces where the losses need it now. Collective.
  void end_forward(Communicator& world);
  // Makes statistics and losses final. Collective. In its parts:
  //   step.reduce_rest(world);            // collective
  //   step.read(read_together(step.unread()));
  //   std::vector<double> words = step.take_words(world);
  //   world.sum_in_place(std::span(words));
  //   step.finish(words);
  void end(Communicator& world);
  void reduce_rest(Communicator& world);
  std::vector<Tensor> unread() const { return ledger_.unread(); }
  void read(std::span<const std::vector<double>> values);
  std::vector<double> take_words(const Communicator& world) { return ledger_.take_words(world); }
  void finish(std::span<const double> words) { ledger_.finish(words); }

  // Tells `observer`, which must outlive this, from now on.
  void observe(RoutingObserver& observer) { observers_.push_back(&observer); }

  // Statistics and losses of the step, over all ranks; final after end().
  int64_t layers() const { return ledger_.layers(); }
  int64_t experts() const { return ledger_.experts(); }
  LayerRouting layer(int64_t layer) const;
  double auxiliary_loss() const;  // of all layers
  bool losses_active() const { return layers() > 0 && losses_.active(); }

  // For the MoE layers.
  const Selection* earlier_choice(int64_t layer) const override;
  void add_choice(int64_t layer, const RoutingChoice& choice) override;
  void add_work(int64_t layer, const ExpertWork& work) override { ledger_.add(layer, work); }
  // What it gives throws Error before the counts have been reduced.
  RoutingLossGradient loss_gradient(int64_t layer) const override;

  RoutingLedger& ledger() { return ledger_; }

 private:
  int64_t scopes() const { return losses_.per_micro_batch() ? micro_batches_ : 1; }

  RoutingLedger ledger_;
  BalanceLosses losses_;
  RoutingReplay replay_;
  std::vector<RoutingObserver*> observers_;
  std::vector<int64_t> blocks_;  // [layers]
  int64_t micro_batches_ = 1;
  bool counted_ = false;                       // by a counting pass
  bool reduced_ = false;                       // the counts that the losses look at
  Tensor gradients_;                           // [layers, experts + 1], from them
  std::vector<BalanceLosses::Values> values_;  // [layers], of the step
};

}  // namespace adagate
