#include "moe/routing_step.h"

#include <numeric>

#include "core/autograd/tape.h"
#include "core/tensor/read_together.h"

namespace adagate {

RoutingStep::RoutingStep(int64_t layers, int64_t experts, const BalanceConfig& balance,
                         std::vector<int64_t> blocks)
    : ledger_(layers, experts), losses_(balance), blocks_(std::move(blocks)) {
  if (blocks_.empty()) {
    blocks_.resize(static_cast<size_t>(layers));
    std::iota(blocks_.begin(), blocks_.end(), 0);
  }
  check(static_cast<int64_t>(blocks_.size()) == layers, "{} blocks of {} MoE layers",
        blocks_.size(), layers);
  begin(1);
}

void RoutingStep::begin(int64_t micro_batches, bool keep_choices) {
  check(micro_batches >= 1, "a step has at least one micro-batch, {} given", micro_batches);
  micro_batches_ = micro_batches;
  counted_ = reduced_ = false;
  ledger_.clear();
  replay_.begin(micro_batches, layers(), keep_choices);
  gradients_ = {};
  values_.assign(static_cast<size_t>(layers()), {});
}

bool RoutingStep::needs_counting_pass() const {
  return losses_active() && !losses_.per_micro_batch() && micro_batches_ > 1;
}

void RoutingStep::begin_micro_batch(int64_t index) {
  check(index >= 0 && index < micro_batches_, "micro-batch {} of {}", index, micro_batches_);
  replay_.begin_micro_batch(index);
  if (losses_.per_micro_batch()) reduced_ = false;  // the counts reduced last are another one's
}

void RoutingStep::reduce(Communicator& world) {
  ledger_.reduce(world);
  reduced_ = true;
  counted_ = needs_counting_pass();
  if (losses_active()) gradients_ = losses_.gradients(ledger_.last(), experts(), scopes());
}

void RoutingStep::end_forward(Communicator& world) {
  if (losses_active() && !counted_ && (losses_.per_micro_batch() || micro_batches_ == 1))
    reduce(world);
}

void RoutingStep::end(Communicator& world) {
  reduce_rest(world);
  read(read_together(unread()));
  std::vector<double> words = take_words(world);
  if (!words.empty()) world.sum_in_place(std::span(words));
  finish(words);
}

void RoutingStep::reduce_rest(Communicator& world) {
  if (!ledger_.reduced()) ledger_.reduce(world);
}

void RoutingStep::read(std::span<const std::vector<double>> values) {
  for (const std::vector<double>& sums : ledger_.read(values)) {
    for (int64_t l = 0; l < layers(); ++l) {
      BalanceLosses::Values of_scope = losses_.values(ledger_.unpack(sums, l), scopes());
      values_[static_cast<size_t>(l)].balance += of_scope.balance;
      values_[static_cast<size_t>(l)].z += of_scope.z;
    }
  }
  gradients_ = {};  // backward is over: nothing of the device's memory stays until the next step
}

LayerRouting RoutingStep::layer(int64_t layer) const {
  LayerRouting result = ledger_.total(layer);
  auto l = static_cast<size_t>(layer);
  result.block = blocks_[l];
  result.balance_loss = values_[l].balance;
  result.z_loss = values_[l].z;
  return result;
}

double RoutingStep::auxiliary_loss() const {
  double balance = 0, z = 0;
  for (const BalanceLosses::Values& layer : values_) {
    balance += layer.balance;
    z += layer.z;
  }
  return balance + z;
}

const Selection* RoutingStep::earlier_choice(int64_t layer) const {
  bool again = counted_ || recomputing();
  return again ? &replay_.kept(layer) : nullptr;
}

void RoutingStep::add_choice(int64_t layer, const RoutingChoice& choice) {
  ledger_.add(layer, choice.sums);
  replay_.keep(layer, choice.selection);
  for (RoutingObserver* observer : observers_) observer->on_choice(layer, choice);
}

RoutingLossGradient RoutingStep::loss_gradient(int64_t layer) const {
  if (!losses_active()) return {};
  return [this, layer] {
    check(reduced_,
          "the balance losses need the counts of the whole batch: backward came before reduce()");
    return gradients_.slice(layer, layer + 1);
  };
}

}  // namespace adagate
