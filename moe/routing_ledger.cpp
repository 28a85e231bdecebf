#include "moe/routing_ledger.h"

#include <algorithm>
#include <numeric>
#include <span>
#include <utility>

#include "core/tensor/accumulate.h"

namespace adagate {
namespace {

// Of a layer's work: rows sent, bytes sent, operations. They stand behind its routing sums in the
// flat form that ranks exchange.
constexpr int64_t kWork = 3;

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
  return routing_sums_size(experts_) + kWork;
}

void RoutingLedger::clear() {
  pending_ = false;
  counted_ = {};
  work_.assign(static_cast<size_t>(layers_ * kWork), 0.0);
  for (auto* sums : {&last_, &total_}) sums->assign(static_cast<size_t>(layers_ * stride()), 0.0);
  local_rows_.assign(static_cast<size_t>(layers_), 0.0);
  rank_rows_.clear();
}

void RoutingLedger::add(int64_t layer, const Tensor& sums) {
  int64_t size = routing_sums_size(experts_);
  check(layer >= 0 && layer < layers_ && sums.numel() == size,
        "MoE layer {} with {} sums: {} layers with {} experts and {} sums are expected", layer,
        sums.numel(), layers_, experts_, size);
  if (!counted_) counted_ = Tensor::zeros({layers_, size}, DType::f64, sums.device());
  accumulate_into(counted_.slice(layer, layer + 1), sums);
  pending_ = true;
}

void RoutingLedger::add(int64_t layer, const ExpertWork& work) {
  local_rows_[static_cast<size_t>(layer)] += static_cast<double>(work.rows);
  double* sums = work_.data() + layer * kWork;
  sums[0] += static_cast<double>(work.rows_sent);
  sums[1] += static_cast<double>(work.bytes_sent);
  sums[2] += work.flops;
  pending_ = true;
}

// What this rank has added, in the flat form; nothing is left.
std::vector<double> RoutingLedger::take_local() {
  std::vector<double> local(static_cast<size_t>(layers_ * stride()), 0.0);
  std::vector<double> counted;
  if (counted_) counted = std::exchange(counted_, {}).to_host<double>();
  int64_t size = routing_sums_size(experts_);
  for (int64_t l = 0; l < layers_; ++l) {
    double* layer = local.data() + l * stride();
    if (!counted.empty()) std::copy_n(counted.data() + l * size, size, layer);
    std::copy_n(work_.data() + l * kWork, kWork, layer + size);
  }
  std::fill(work_.begin(), work_.end(), 0.0);
  return local;
}

void RoutingLedger::reduce(Communicator& world) {
  std::vector<double> message = take_local();
  size_t size = message.size();
  auto ranks = static_cast<size_t>(world.size()), rank = static_cast<size_t>(world.rank());
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
  auto size = static_cast<size_t>(routing_sums_size(experts_));
  std::span<const double> flat(sums.data() + layer * stride(), size + kWork);
  LayerRouting result{.sums = unpack_routing_sums(flat.first(size), experts_)};
  result.rows_sent = flat[size];
  result.bytes_sent = flat[size + 1];
  result.flops = flat[size + 2];
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
