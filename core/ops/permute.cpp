#include "core/ops/permute.h"

namespace adagate {
namespace {

GatherRowsArgs gather_args(const Tensor& in, const Tensor& from, const Tensor& out) {
  return {.in = in.raw(),
          .from = from.data<int32_t>(),
          .out = out.raw(),
          .rows = from.numel(),
          .row_bytes = in.cols() * static_cast<int64_t>(size_of(in.dtype()))};
}

}  // namespace

ExpertOrder sort_by_expert(const Selection& selection) {
  const Tensor& expert = selection.expert;
  const std::vector<int64_t>& counts = selection.host_counts;
  int64_t experts = selection.counts.numel();
  ExpertOrder order{.offsets = {Tensor::empty({experts + 1}, DType::i64, expert.device()),
                                counts.empty() ? counts : offsets_of(counts), expert.numel()},
                    .row_start = selection.row_start,
                    .row = Tensor::empty({expert.numel()}, DType::i32, expert.device()),
                    .token = Tensor::empty({expert.numel()}, DType::i32, expert.device())};
  launch_on(expert.device(), SortByExpertArgs{.row_start = order.row_start.data<int32_t>(),
                                              .expert = expert.data<int32_t>(),
                                              .offsets = order.offsets.device.data<int64_t>(),
                                              .row = order.row.data<int32_t>(),
                                              .token = order.token.data<int32_t>(),
                                              .tokens = order.tokens(),
                                              .experts = experts});
  return order;
}

Tensor gather_rows(const Tensor& x, const ExpertOrder& order) {
  check(x.rows() == order.tokens(), "gather_rows: {} rows, an order of {} tokens", x.rows(),
        order.tokens());
  // A row for each assignment, not for each token: experts read rows that lie side by side.
  Tensor y = Tensor::empty({order.rows(), x.cols()}, x.dtype(), x.device());
  GatherRowsArgs args = gather_args(x, order.token, y);
  args.used = order.offsets.used();
  launch_on(x.device(), args);
  if (!tape_needs({&x})) return y;
  return record("gather_rows", y,
                // The gradient of a token is the sum over its copies; taken token by token, in the
                // order of its experts, so that no two threads add to one row.
                [dx = Gradient(x), row_start = order.row_start, row = order.row,
                 tokens = order.tokens(), width = x.cols()](const Tensor& dy) {
                  auto to = dx.destination();
                  launch_on(dy.device(), SumRowsArgs{.rows = dy.raw(),
                                                     .row_start = row_start.data<int32_t>(),
                                                     .row = row.data<int32_t>(),
                                                     .out = to.tensor.raw(),
                                                     .tokens = tokens,
                                                     .width = width,
                                                     .accumulate = to.accumulate,
                                                     .type = dy.dtype()});
                });
}

Tensor combine_rows(const Tensor& rows, const Tensor& weight, const ExpertOrder& order) {
  check(rows.rows() == order.rows() && weight.numel() == order.rows(),
        "combine_rows: {} rows and {} weights for {} assignments", rows.rows(), weight.numel(),
        order.rows());
  DType weight_type = compute_dtype(rows.dtype());
  check(weight.dtype() == weight_type, "combine_rows: weights of {} for rows of {}",
        name_of(weight.dtype()), name_of(rows.dtype()));
  Tensor y = Tensor::empty({order.tokens(), rows.cols()}, rows.dtype(), rows.device());
  launch_on(rows.device(), SumRowsArgs{.rows = rows.raw(),
                                       .weight = weight.raw(),
                                       .row_start = order.row_start.data<int32_t>(),
                                       .row = order.row.data<int32_t>(),
                                       .out = y.raw(),
                                       .tokens = order.tokens(),
                                       .width = rows.cols(),
                                       .type = rows.dtype()});
  if (!tape_needs({&rows, &weight})) return y;
  return record(
      "combine_rows", y,
      [rows = rows.detach(), weight = weight.detach(), row_start = order.row_start, row = order.row,
       drows = Gradient(rows), dweight = Gradient(weight)](const Tensor& dy) {
        auto to_rows = drows.destination();
        auto to_weight = dweight.destination();
        launch_on(dy.device(), CombineBackwardArgs{.dy = dy.raw(),
                                                   .rows = rows.raw(),
                                                   .weight = weight.raw(),
                                                   .row_start = row_start.data<int32_t>(),
                                                   .row = row.data<int32_t>(),
                                                   .drows = to_rows.tensor.raw(),
                                                   .dweight = to_weight.tensor.raw(),
                                                   .tokens = row_start.numel() - 1,
                                                   .width = rows.cols(),
                                                   .accumulate_drows = to_rows.accumulate,
                                                   .accumulate_dweight = to_weight.accumulate,
                                                   .type = rows.dtype()});
      });
}

Tensor permute_rows(const Tensor& x, const Tensor& from, const Tensor& to) {
  check(x.rows() == from.numel() && x.rows() == to.numel(),
        "permute_rows: {} rows, permutations of {} and {}", x.rows(), from.numel(), to.numel());
  Tensor y = empty_like(x);
  launch_on(x.device(), gather_args(x, from, y));
  if (!tape_needs({&x})) return y;
  // Backward is the inverse permutation: a gather as well, which `to` is kept for.
  return record("permute_rows", y, [dx = Gradient(x), to](const Tensor& dy) {
    Tensor back = empty_like(dy);
    launch_on(dy.device(), gather_args(dy, to, back));
    dx.add(back);
  });
}

Tensor pick_rows(const Tensor& x, const Tensor& index) {
  Tensor y = Tensor::empty({index.numel(), x.cols()}, x.dtype(), x.device());
  launch_on(x.device(), gather_args(x, index, y));
  return y;
}

}  // namespace adagate
