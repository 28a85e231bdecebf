#include "moe/routing_step.h"

#include <algorithm>
#include <numeric>

namespace adagate {
namespace {

double sum_of(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

// The flat form of one layer's sums, in this order on all ranks.
template <class Layer, class F>
void for_each_sum(Layer& layer, F&& f) {
  for (auto* list : {&layer.sums.single, &layer.sums.assigned, &layer.sums.probability,
                     &layer.sums.by_count, &layer.sums.gap})
    for (auto& value : *list) f(value);
  for (auto* value : {&layer.sums.tokens, &layer.sums.entropy, &layer.sums.log_sum_exp_squared,
                      &layer.rows_sent, &layer.bytes_sent, &layer.flops})
    f(*value);
}

}  // namespace

double LayerRouting::assignments() const {
  return sum_of(sums.assigned);
}

double LayerRouting::share_with(int64_t k) const {
  if (sums.tokens == 0 || k >= static_cast<int64_t>(sums.by_count.size())) return 0;
  return sums.by_count[static_cast<size_t>(k)] / sums.tokens;
}

RoutingStep::RoutingStep(int64_t layers, int64_t experts, const BalanceConfig& balance,
                         std::vector<int64_t> blocks)
    : layers_(layers), experts_(experts), balance_(balance), blocks_(std::move(blocks)) {
  if (blocks_.empty()) {
    blocks_.resize(static_cast<size_t>(layers));
    std::iota(blocks_.begin(), blocks_.end(), 0);
  }
  check(static_cast<int64_t>(blocks_.size()) == layers, "{} blocks of {} MoE layers",
        blocks_.size(), layers);
  check(balance.loss == "paper" || balance.loss == "switch" || balance.loss == "none",
        "moe.balance.loss is '{}': paper, switch or none", balance.loss);
  check(balance.scope == "global_batch" || balance.scope == "micro_batch",
        "moe.balance.scope is '{}': global_batch or micro_batch", balance.scope);
  if (balance_.loss == "none") balance_.coefficient = 0;
  begin(1);
}

int64_t RoutingStep::stride() const {
  return 4 * experts_ + 1 + kGapBins + 6;
}

void RoutingStep::begin(int64_t micro_batches, bool keep_decisions) {
  check(micro_batches >= 1, "a step has at least one micro-batch, {} given", micro_batches);
  micro_batches_ = micro_batches;
  micro_batch_ = 0;
  counted_ = pending_ = reduced_ = false;
  auto size = static_cast<size_t>(layers_ * stride());
  local_.assign(size, 0.0);
  scope_.assign(size, 0.0);
  total_.assign(size, 0.0);
  balance_loss_.assign(static_cast<size_t>(layers_), 0.0);
  z_loss_.assign(static_cast<size_t>(layers_), 0.0);
  local_rows_.assign(static_cast<size_t>(layers_), 0.0);
  rank_rows_.clear();
  kept_.assign(static_cast<size_t>(keep_decisions ? micro_batches * layers_ : 0), {});
}

bool RoutingStep::needs_counting_pass() const {
  return losses_active() && !per_micro_batch() && micro_batches_ > 1;
}

void RoutingStep::begin_micro_batch(int64_t index) {
  check(index >= 0 && index < micro_batches_, "micro-batch {} of {}", index, micro_batches_);
  micro_batch_ = index;
  if (per_micro_batch()) reduced_ = false;  // the counts reduced last are another one's
}

void RoutingStep::reduce(Communicator& world) {
  size_t size = local_.size();
  auto ranks = static_cast<size_t>(world.size()), rank = static_cast<size_t>(world.rank());
  scope_ = std::exchange(local_, std::vector<double>(size, 0.0));
  scope_.resize(size + local_rows_.size() * ranks);  // each rank has its place
  for (size_t l = 0; l < local_rows_.size(); ++l)
    scope_[size + l * ranks + rank] = std::exchange(local_rows_[l], 0.0);
  world.sum_in_place(std::span<double>(scope_));
  rank_rows_.resize(local_rows_.size() * ranks);
  for (size_t i = 0; i < rank_rows_.size(); ++i) rank_rows_[i] += scope_[size + i];
  scope_.resize(size);
  for (size_t i = 0; i < total_.size(); ++i) total_[i] += scope_[i];
  pending_ = false;
  reduced_ = true;
  counted_ = needs_counting_pass();
  for (int64_t l = 0; l < layers_; ++l) {
    RoutingSums sums = unpack(scope_, l).sums;
    if (sums.tokens == 0) continue;
    auto i = static_cast<size_t>(l);
    std::vector<double> shares = load_shares(sums);
    if (!shares.empty()) {
      double dot = std::inner_product(shares.begin(), shares.end(), sums.probability.begin(), 0.0);
      balance_loss_[i] += micro_batch_share() * balance_.coefficient *
                          static_cast<double>(experts_) * dot / sums.tokens;
    }
    z_loss_[i] +=
        micro_batch_share() * balance_.z_coefficient * sums.log_sum_exp_squared / sums.tokens;
  }
}

void RoutingStep::end_forward(Communicator& world) {
  if (losses_active() && !counted_ && (per_micro_batch() || micro_batches_ == 1)) reduce(world);
}

void RoutingStep::end(Communicator& world) {
  if (pending_) reduce(world);
}

double RoutingStep::micro_batch_share() const {
  return per_micro_batch() ? 1.0 / static_cast<double>(micro_batches_) : 1.0;
}

std::vector<double> RoutingStep::load_shares(const RoutingSums& sums) const {
  std::vector<double> shares = balance_.loss == "paper" ? sums.single : sums.assigned;
  double total = sum_of(shares);
  if (total == 0 || balance_.coefficient == 0) return {};
  for (double& share : shares) share /= total;
  return shares;
}

RoutingLossGradient RoutingStep::loss_gradient(int64_t layer) const {
  check(reduced_,
        "the balance losses need the counts of the whole batch: backward came before reduce()");
  RoutingSums sums = unpack(scope_, layer).sums;
  if (sums.tokens == 0) return {};
  RoutingLossGradient gradient;
  gradient.probability = load_shares(sums);
  double factor = micro_batch_share() * balance_.coefficient * static_cast<double>(experts_);
  for (double& value : gradient.probability) value *= factor / sums.tokens;
  gradient.log_sum_exp_squared = micro_batch_share() * balance_.z_coefficient / sums.tokens;
  return gradient;
}

LayerRouting RoutingStep::unpack(const std::vector<double>& sums, int64_t layer) const {
  LayerRouting result;
  auto e = static_cast<size_t>(experts_);
  for (auto* list : {&result.sums.single, &result.sums.assigned, &result.sums.probability})
    list->resize(e);
  result.sums.by_count.resize(e + 1);
  result.sums.gap.resize(static_cast<size_t>(kGapBins));
  const double* next = sums.data() + layer * stride();
  for_each_sum(result, [&](double& value) { value = *next++; });
  return result;
}

LayerRouting RoutingStep::layer(int64_t layer) const {
  check(layer >= 0 && layer < layers_, "MoE layer {} of {}", layer, layers_);
  LayerRouting result = unpack(total_, layer);
  auto ranks = static_cast<int64_t>(rank_rows_.size()) / layers_;
  auto rows = rank_rows_.begin() + layer * ranks;
  result.rank_rows.assign(rows, rows + ranks);
  result.block = blocks_[static_cast<size_t>(layer)];
  result.balance_loss = balance_loss_[static_cast<size_t>(layer)];
  result.z_loss = z_loss_[static_cast<size_t>(layer)];
  return result;
}

double RoutingStep::auxiliary_loss() const {
  return sum_of(balance_loss_) + sum_of(z_loss_);
}

void RoutingStep::count(int64_t layer, const RoutingSums& sums) {
  check(layer >= 0 && layer < layers_ && static_cast<int64_t>(sums.single.size()) == experts_,
        "MoE layer {} with {} experts, counted where {} layers with {} are expected", layer,
        sums.single.size(), layers_, experts_);
  LayerRouting counted{.sums = sums};
  counted.sums.gap.resize(static_cast<size_t>(kGapBins));
  double* next = local_.data() + layer * stride();
  for_each_sum(counted, [&](double value) { *next++ += value; });
  pending_ = true;
}

void RoutingStep::count_exchange(int64_t layer, int64_t rows, int64_t rows_sent, int64_t bytes_sent,
                                 double flops) {
  local_rows_[static_cast<size_t>(layer)] += static_cast<double>(rows);
  double* last = local_.data() + (layer + 1) * stride();
  last[-3] += static_cast<double>(rows_sent);
  last[-2] += static_cast<double>(bytes_sent);
  last[-1] += flops;
  pending_ = true;
}

void RoutingStep::keep(int64_t layer, const Selection& selection) {
  if (!kept_.empty()) kept_[static_cast<size_t>(micro_batch_ * layers_ + layer)] = selection;
}

const Selection& RoutingStep::selection(int64_t layer) const {
  const Selection& kept = kept_[static_cast<size_t>(micro_batch_ * layers_ + layer)];
  check(static_cast<bool>(kept.row_start), "MoE layer {}, micro-batch {}: run again before it ran",
        layer, micro_batch_);
  return kept;
}

}  // namespace adagate
