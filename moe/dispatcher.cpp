#include "moe/dispatcher.h"

#include <numeric>

namespace adagate {
namespace {

int64_t sum_of(const std::vector<int64_t>& values) {
  return std::accumulate(values.begin(), values.end(), int64_t{0});
}

Tensor exchange(const Tensor& x, const std::vector<int64_t>& send_rows,
                const std::vector<int64_t>& recv_rows, Communicator& group) {
  Tensor y = Tensor::empty({sum_of(recv_rows), x.cols()}, x.dtype(), x.device());
  group.on(x.device(), "exchange_rows")
      .all_to_all_v({.send = x.raw(),
                     .send_rows = send_rows,
                     .recv = y.raw(),
                     .recv_rows = recv_rows,
                     .row_bytes = x.cols() * static_cast<int64_t>(size_of(x.dtype()))});
  return y;
}

}  // namespace

Tensor exchange_rows(const Tensor& x, const std::vector<int64_t>& send_rows,
                     const std::vector<int64_t>& recv_rows,
                     const std::shared_ptr<Communicator>& group) {
  check(sum_of(send_rows) == x.rows(), "exchange_rows: {} rows, counts for {}", x.rows(),
        sum_of(send_rows));
  Tensor y = exchange(x, send_rows, recv_rows, *group);
  if (!tape_needs({&x})) return y;
  record_many(
      "exchange_rows", {&y},
      [dx = Gradient(x), send_rows, recv_rows, group, shape = y.shape(), dtype = y.dtype(),
       device = y.device()](std::span<const Tensor> dys) {
        Tensor dy = dys[0] ? dys[0] : Tensor::zeros(shape, dtype, device);
        dx.add(exchange(dy, recv_rows, send_rows, *group));
      },
      /*always=*/true);
  return y;
}

Dispatcher::Dispatcher(std::shared_ptr<Communicator> group, int64_t experts)
    : group_(std::move(group)), experts_(experts) {
  check(experts_ >= 1 && experts_ % group_->size() == 0,
        "{} experts can't be split evenly over {} expert-parallel ranks: make moe.experts a "
        "multiple of the expert-parallel size",
        experts_, group_->size());
}

Dispatched Dispatcher::dispatch(const Tensor& x, const RoutingPlan& plan) const {
  check(plan.experts == experts_, "dispatch: a plan for {} experts, {} here", plan.experts,
        experts_);
  Dispatched result;
  result.weight = plan.weight;
  result.order = sort_by_expert(plan.selection);
  Tensor rows = gather_rows(x, result.order);  // [assignments, width]
  if (group_->size() == 1) {
    result.rows = rows;
    result.offsets = result.order.offsets;
    return result;
  }
  exchange_counts(plan, result);
  Tensor arrived = exchange_rows(rows, result.send_rows, result.recv_rows, group_);
  result.rows = permute_rows(arrived, result.arrival.to_sorted, result.arrival.to_arrived);
  return result;
}

void Dispatcher::exchange_counts(const RoutingPlan& plan, Dispatched& to) const {
  check(!plan.selection.host_counts.empty(),
        "dispatch: the host does not know how many rows go to each rank: read_counts() first");
  int64_t ranks = group_->size(), local = local_experts();
  // counts[s * local + e]: rows from rank s for local expert e
  std::vector<int64_t> counts(static_cast<size_t>(experts_)), ones(static_cast<size_t>(ranks), 1);
  group_->all_to_all_v({.send = plan.selection.host_counts.data(),
                        .send_rows = ones,
                        .recv = counts.data(),
                        .recv_rows = ones,
                        .row_bytes = local * static_cast<int64_t>(sizeof(int64_t))});
  for (int64_t s = 0; s < ranks; ++s) {
    auto part = [&](const std::vector<int64_t>& all) {
      auto from = all.begin() + s * local;
      return std::accumulate(from, from + local, int64_t{0});
    };
    to.send_rows.push_back(part(plan.selection.host_counts));
    to.recv_rows.push_back(part(counts));
  }
  to.rows_sent = sum_of(to.send_rows) - to.send_rows[static_cast<size_t>(group_->rank())];
  to.arriving = sum_of(counts);
  to.arrival = arrival_order(counts, ranks, plan.weight.device());
  to.offsets = to.arrival.offsets;
}

Tensor Dispatcher::combine(const Tensor& y, const Dispatched& dispatched) const {
  if (group_->size() == 1) return combine_rows(y, dispatched.weight, dispatched.order);
  Tensor by_source = permute_rows(y, dispatched.arrival.to_arrived, dispatched.arrival.to_sorted);
  Tensor back = exchange_rows(by_source, dispatched.recv_rows, dispatched.send_rows, group_);
  return combine_rows(back, dispatched.weight, dispatched.order);
}

}  // namespace adagate
