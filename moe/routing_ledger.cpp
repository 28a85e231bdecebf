#include "moe/routing_ledger.h"

#include <numeric>
#include <utility>

namespace adagate {
namespace {

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
  return std::accumulate(sums.assigned.begin(), sums.assigned.end(), 0.0);
}

double LayerRouting::share_with(int64_t k) const {
  if (sums.tokens == 0 || k >= static_cast<int64_t>(sums.by_count.size())) return 0;
  return sums.by_count[static_cast<size_t>(k)] / sums.tokens;
}

RoutingLedger::RoutingLedger(int64_t layers, int64_t experts) : layers_(layers), experts_(experts) {
  clear();
}

int64_t RoutingLedger::stride() const {
  return 4 * experts_ + 1 + kGapBins + 6;
}

void RoutingLedger::clear() {
  pending_ = false;
  auto size = static_cast<size_t>(layers_ * stride());
  for (auto* sums : {&local_, &last_, &total_}) sums->assign(size, 0.0);
  local_rows_.assign(static_cast<size_t>(layers_), 0.0);
  rank_rows_.clear();
}

void RoutingLedger::add(int64_t layer, const RoutingSums& sums) {
  check(layer >= 0 && layer < layers_ && static_cast<int64_t>(sums.single.size()) == experts_,
        "MoE layer {} with {} experts, counted where {} layers with {} are expected", layer,
        sums.single.size(), layers_, experts_);
  LayerRouting counted{.sums = sums};
  counted.sums.gap.resize(static_cast<size_t>(kGapBins));
  double* next = local_.data() + layer * stride();
  for_each_sum(counted, [&](double value) { *next++ += value; });
  pending_ = true;
}

void RoutingLedger::add(int64_t layer, const ExpertWork& work) {
  local_rows_[static_cast<size_t>(layer)] += static_cast<double>(work.rows);
  double* last = local_.data() + (layer + 1) * stride();
  last[-3] += static_cast<double>(work.rows_sent);
  last[-2] += static_cast<double>(work.bytes_sent);
  last[-1] += work.flops;
  pending_ = true;
}

void RoutingLedger::reduce(Communicator& world) {
  size_t size = local_.size();
  auto ranks = static_cast<size_t>(world.size()), rank = static_cast<size_t>(world.rank());
  std::vector<double> message = std::exchange(local_, std::vector<double>(size, 0.0));
  message.resize(size + local_rows_.size() * ranks);  // each rank has its place
  for (size_t l = 0; l < local_rows_.size(); ++l)
    message[size + l * ranks + rank] = std::exchange(local_rows_[l], 0.0);
  world.sum_in_place(std::span<double>(message));
  rank_rows_.resize(local_rows_.size() * ranks);
  for (size_t i = 0; i < rank_rows_.size(); ++i) rank_rows_[i] += message[size + i];
  message.resize(size);
  for (size_t i = 0; i < total_.size(); ++i) total_[i] += message[i];
  last_ = std::move(message);
  pending_ = false;
}

LayerRouting RoutingLedger::unpack(const std::vector<double>& sums, int64_t layer) const {
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

RoutingSums RoutingLedger::last(int64_t layer) const {
  return unpack(last_, layer).sums;
}

LayerRouting RoutingLedger::total(int64_t layer) const {
  check(layer >= 0 && layer < layers_, "MoE layer {} of {}", layer, layers_);
  LayerRouting result = unpack(total_, layer);
  auto ranks = static_cast<int64_t>(rank_rows_.size()) / layers_;
  auto rows = rank_rows_.begin() + layer * ranks;
  result.rank_rows.assign(rows, rows + ranks);
  return result;
}

}  // namespace adagate
