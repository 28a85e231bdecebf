// Brings every token's row to its experts and the results back. With one rank per expert group rows
// are sorted locally; with several they travel: counts first, then one all-to-all-v of the rows
// that exist. Backward reuses the handle: the same permutations, swapped counts, no second count
// exchange.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "core/ops/arrival_order.h"
#include "core/ops/permute.h"
#include "moe/routing_plan.h"
#include "parallel/communicator.h"

namespace adagate {

// Rows at their experts, and the way back.
struct Dispatched {
  Tensor rows;           // [rows here, or the plan's room for them, width], by local expert
  GroupOffsets offsets;  // of the local experts
  Tensor weight;         // the plan's
  ExpertOrder order;     // of this rank's own assignments

  // With several ranks only. Rows arrive by (source rank, expert) and are sorted again by expert.
  std::vector<int64_t> send_rows, recv_rows;  // [ranks]
  ArrivalOrder arrival;
  int64_t rows_sent = 0;            // of send_rows, those to other ranks
  std::optional<int64_t> arriving;  // of recv_rows; with one rank the plan's own
};

class Dispatcher {
 public:
  // `group`: the ranks that hold all experts together, equally many each, in rank order. Throws
  // Error when `experts` can't be split so.
  Dispatcher(std::shared_ptr<Communicator> group, int64_t experts);

  int64_t local_experts() const { return experts_ / group_->size(); }
  int64_t first_expert() const { return group_->rank() * local_experts(); }
  // Whether plans must come with Selection::host_counts: messages between ranks need their lengths.
  bool needs_host_counts() const { return group_->size() > 1; }

  // x [tokens, width]. Throws Error when the plan lacks the host's counts that it needs. Collective
  // over the group, and so is its backward: ranks without tokens join.
  Dispatched dispatch(const Tensor& x, const RoutingPlan& plan) const;

  // y: the experts' results for dispatched.rows -> [tokens, width], the weighted sum of each
  // token's results; tokens without experts give zero. Collective like dispatch().
  Tensor combine(const Tensor& y, const Dispatched& dispatched) const;

 private:
  void exchange_counts(const RoutingPlan& plan, Dispatched& to) const;

  std::shared_ptr<Communicator> group_;
  int64_t experts_;
};

// Rows of x, contiguous by destination rank, to the ranks of `group`; [sum of recv_rows, width]
// comes back, contiguous by source rank. Backward sends the gradients back, on every rank, whether
// or not a gradient reached it there. Collective.
Tensor exchange_rows(const Tensor& x, const std::vector<int64_t>& send_rows,
                     const std::vector<int64_t>& recv_rows,
                     const std::shared_ptr<Communicator>& group);

}  // namespace adagate
