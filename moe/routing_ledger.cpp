#include "moe/routing_ledger.h"

#include <algorithm>
#include <numeric>
#include <span>
#include <utility>

#include "core/tensor/accumulate.h"

namespace adagate {
namespace {

// The words of a layer that ranks exchange: rows sent, bytes sent, operations; behind them the rows
// of each rank.
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

void RoutingLedger::clear() {
  pending_ = false;
  counted_ = own_ = {};
  reduced_.clear();
  work_.assign(static_cast<size_t>(layers_), {});
  total_.assign(static_cast<size_t>(layers_ * routing_sums_size(experts_)), 0.0);
  words_.assign(static_cast<size_t>(layers_ * kWork), 0.0);
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
  Work& sum = work_[static_cast<size_t>(layer)];
  auto rows = static_cast<double>(work.rows.value_or(0));
  sum.rows += rows;
  sum.rows_sent += static_cast<double>(work.rows_sent);
  sum.bytes_sent += static_cast<double>(work.bytes_sent);
  sum.flops += work.flops + rows * work.flops_per_row;
  sum.flops_per_row = work.flops_per_row;
  sum.rows_of_choice = !work.rows;
  pending_ = true;
}

bool RoutingLedger::rows_of_choice() const {
  return std::any_of(work_.begin(), work_.end(), [](const Work& w) { return w.rows_of_choice; });
}

void RoutingLedger::reduce(Communicator& world) {
  pending_ = false;
  if (!counted_) counted_ = Tensor::zeros({layers_, routing_sums_size(experts_)}, DType::f64);
  if (world.size() > 1) {
    if (rows_of_choice()) {
      if (own_) {
        accumulate_into(own_, counted_);
      } else {
        own_ = counted_.clone();
      }
    }
    world.on(counted_.device(), "routing sums")
        .all_reduce(counted_.raw(), counted_.numel(), DType::f64, ReduceOp::sum);
  }
  reduced_.push_back(std::exchange(counted_, {}));
}

std::vector<Tensor> RoutingLedger::unread() const {
  std::vector<Tensor> all = reduced_;
  if (own_) all.push_back(own_);
  return all;
}

std::span<const std::vector<double>> RoutingLedger::read(
    std::span<const std::vector<double>> values) {
  auto sums = values.first(reduced_.size());
  for (const std::vector<double>& s : sums)
    for (size_t i = 0; i < total_.size(); ++i) total_[i] += s[i];
  // Without a sum of its own the rank is the only one.
  for (const std::vector<double>& own : own_ ? values.last(1) : sums) add_rows_of_choice(own);
  reduced_.clear();
  own_ = {};
  return sums;
}

void RoutingLedger::add_rows_of_choice(const std::vector<double>& own) {
  for (int64_t l = 0; l < layers_; ++l) {
    Work& work = work_[static_cast<size_t>(l)];
    if (!work.rows_of_choice) continue;
    RoutingSumsView sums{own.data() + l * routing_sums_size(experts_), experts_};
    double rows = std::accumulate(sums.assigned(), sums.assigned() + experts_, 0.0);
    work.rows += rows;
    work.flops += rows * work.flops_per_row;
  }
}

std::vector<double> RoutingLedger::take_words(const Communicator& world) {
  auto ranks = static_cast<size_t>(world.size()), rank = static_cast<size_t>(world.rank());
  std::vector<double> words;
  for (Work& layer : work_) {
    Work work = std::exchange(layer, {});
    words.insert(words.end(), {work.rows_sent, work.bytes_sent, work.flops});
    size_t rows = words.size();
    words.resize(rows + ranks);
    words[rows + rank] = work.rows;
  }
  return words;
}

void RoutingLedger::finish(std::span<const double> words) {
  words_.resize(words.size());
  for (size_t i = 0; i < words.size(); ++i) words_[i] += words[i];
}

RoutingSums RoutingLedger::unpack(const std::vector<double>& sums, int64_t layer) const {
  auto size = static_cast<size_t>(routing_sums_size(experts_));
  return unpack_routing_sums(std::span(sums).subspan(static_cast<size_t>(layer) * size, size),
                             experts_);
}

LayerRouting RoutingLedger::total(int64_t layer) const {
  check(layer >= 0 && layer < layers_, "MoE layer {} of {}", layer, layers_);
  LayerRouting result{.sums = unpack(total_, layer)};
  auto stride = static_cast<int64_t>(words_.size()) / layers_;
  auto words = words_.begin() + layer * stride;
  result.rows_sent = words[0];
  result.bytes_sent = words[1];
  result.flops = words[2];
  result.rank_rows.assign(words + kWork, words + stride);
  return result;
}

}  // namespace adagate
