#include "core/ops/routing.h"

#include <algorithm>

namespace adagate {
namespace {

const uint8_t* mask_of(const Tensor& mask, int64_t tokens) {
  check(!mask || mask.numel() == tokens, "routing: token mask of {} for {} tokens", mask.numel(),
        tokens);
  return mask ? mask.data<uint8_t>() : nullptr;
}

int64_t tokens_of(const Selection& selection) {
  return selection.row_start.numel() - 1;
}

// Keeps what backward needs, nothing of the tape.
struct SavedRouting {
  Tensor x, weight, probabilities, log_sum_exp, row_start, expert, mask;
  bool renormalize;
  Gradient dx, dweight;
  std::function<RoutingLossGradient()> losses;

  void backward(const Tensor& dy) const;
};

void SavedRouting::backward(const Tensor& dy) const {
  RoutingLossGradient loss = losses ? losses() : RoutingLossGradient{};
  if (!dy && loss.none()) return;
  int64_t tokens = probabilities.dim(0), experts = probabilities.dim(1);
  int64_t stride = (experts + kGateExpertTile - 1) / kGateExpertTile * kGateExpertTile;
  Tensor dlogits = Tensor::empty({tokens, stride}, probabilities.dtype(), x.device());
  launch_on(x.device(),
            RoutingBackwardArgs{.probabilities = probabilities.raw(),
                                .log_sum_exp = log_sum_exp.raw(),
                                .row_start = row_start.data<int32_t>(),
                                .expert = expert.data<int32_t>(),
                                .dweight = dy.raw(),
                                .mask = mask_of(mask, tokens),
                                .probability_gradient =
                                    loss.probability.empty() ? nullptr : loss.probability.data(),
                                .lse_squared_gradient = loss.log_sum_exp_squared,
                                .dlogits = dlogits.raw(),
                                .tokens = tokens,
                                .experts = experts,
                                .stride = stride,
                                .renormalize = renormalize,
                                .type = probabilities.dtype()});
  auto to_x = dx.destination();
  auto to_weight = dweight.destination();
  launch_on(x.device(), GateProductBackwardArgs{.x = x.raw(),
                                                .weight = weight.raw(),
                                                .dlogits = dlogits.raw(),
                                                .dx = to_x.tensor.raw(),
                                                .dweight = to_weight.tensor.raw(),
                                                .tokens = tokens,
                                                .width = x.cols(),
                                                .experts = experts,
                                                .stride = stride,
                                                .accumulate_dx = to_x.accumulate,
                                                .accumulate_dweight = to_weight.accumulate,
                                                .x_type = x.dtype(),
                                                .type = weight.dtype()});
}

}  // namespace

GateScores gate_scores(const Tensor& x, const Tensor& weight) {
  check(weight.shape().rank() == 2 && x.cols() == weight.dim(0),
        "gate: x has {} columns, the weight is {}", x.cols(), weight.shape());
  check(weight.dtype() == DType::f32 || weight.dtype() == DType::f64,
        "gate: the weight is {}; it is kept in f32 whatever the precision of x",
        name_of(weight.dtype()));
  int64_t tokens = x.rows(), experts = weight.dim(1);
  DType type = weight.dtype();
  GateScores scores{Tensor::empty({tokens, experts}, type, x.device()),
                    Tensor::empty({tokens}, type, x.device()),
                    Tensor::empty({tokens}, type, x.device())};
  launch_on(x.device(), GateScoresArgs{.x = x.raw(),
                                       .weight = weight.raw(),
                                       .probabilities = scores.probabilities.raw(),
                                       .log_sum_exp = scores.log_sum_exp.raw(),
                                       .entropy = scores.entropy.raw(),
                                       .tokens = tokens,
                                       .width = x.cols(),
                                       .experts = experts,
                                       .x_type = x.dtype(),
                                       .type = type});
  return scores;
}

Selection select_experts(const GateScores& scores, const SelectionRule& rule, const Tensor& mask,
                         const Tensor& row_ids, const Tensor& bias) {
  int64_t tokens = scores.probabilities.dim(0), experts = scores.probabilities.dim(1);
  check(rule.k_max >= 1 && rule.k_max <= experts, "routing: {} experts per token of {}", rule.k_max,
        experts);
  bool random = rule.kind == SelectionRule::Kind::random_second;
  check(!random || (row_ids && row_ids.numel() == tokens),
        "routing: a random choice needs the id of each of the {} tokens, {} given", tokens,
        row_ids ? row_ids.numel() : 0);
  check(!bias || bias.numel() == experts, "routing: a bias of {} scores for {} experts",
        bias.numel(), experts);
  Device device = scores.probabilities.device();
  Tensor chosen = Tensor::empty({tokens, rule.k_max}, DType::i32, device);
  Selection selection{Tensor::empty({tokens + 1}, DType::i32, device), {}};
  launch_on(device, SelectExpertsArgs{.probabilities = scores.probabilities.raw(),
                                      .bias = bias ? bias.data<float>() : nullptr,
                                      .mask = mask_of(mask, tokens),
                                      .row_ids = random ? row_ids.data<int64_t>() : nullptr,
                                      .chosen = chosen.data<int32_t>(),
                                      .row_start = selection.row_start.data<int32_t>(),
                                      .tokens = tokens,
                                      .experts = experts,
                                      .rule = rule,
                                      .type = scores.probabilities.dtype()});
  int64_t assignments = selection.row_start.data<int32_t>()[tokens];
  selection.expert = Tensor::empty({assignments}, DType::i32, device);
  launch_on(device, CompactSelectionArgs{.chosen = chosen.data<int32_t>(),
                                         .row_start = selection.row_start.data<int32_t>(),
                                         .expert = selection.expert.data<int32_t>(),
                                         .tokens = tokens,
                                         .k_max = rule.k_max});
  return selection;
}

Tensor routing_weights(const Tensor& x, const Tensor& weight, const GateScores& scores,
                       const Selection& selection, bool renormalize, const Tensor& mask,
                       std::function<RoutingLossGradient()> losses) {
  int64_t tokens = tokens_of(selection), experts = scores.probabilities.dim(1);
  check(tokens == x.rows() && tokens == scores.probabilities.dim(0),
        "routing: {} tokens, a selection of {}", x.rows(), tokens);
  Tensor y = Tensor::empty({selection.expert.numel()}, scores.probabilities.dtype(), x.device());
  launch_on(x.device(), RoutingWeightsArgs{.probabilities = scores.probabilities.raw(),
                                           .row_start = selection.row_start.data<int32_t>(),
                                           .expert = selection.expert.data<int32_t>(),
                                           .weight = y.raw(),
                                           .tokens = tokens,
                                           .experts = experts,
                                           .renormalize = renormalize,
                                           .type = scores.probabilities.dtype()});
  if (!tape_needs({&x, &weight})) return y;
  SavedRouting saved{.x = x.detach(),
                     .weight = weight.detach(),
                     .probabilities = scores.probabilities,
                     .log_sum_exp = scores.log_sum_exp,
                     .row_start = selection.row_start,
                     .expert = selection.expert,
                     .mask = mask,
                     .renormalize = renormalize,
                     .dx = Gradient(x),
                     .dweight = Gradient(weight),
                     .losses = std::move(losses)};
  record_many(
      "routing_weights", {&y},
      [saved = std::move(saved)](std::span<const Tensor> dys) { saved.backward(dys[0]); },
      /*always=*/true);
  return y;
}

RoutingSums routing_sums(const GateScores& scores, const Selection& selection, const Tensor& mask,
                         bool pair_normalized) {
  int64_t tokens = tokens_of(selection), experts = scores.probabilities.dim(1);
  auto e = static_cast<size_t>(experts);
  constexpr auto bins = static_cast<size_t>(kGapBins);
  const size_t gap = 4 * e + 1, scalars = gap + bins;
  std::vector<double> flat(scalars + 3);
  launch_on(scores.probabilities.device(),
            RoutingSumsArgs{.probabilities = scores.probabilities.raw(),
                            .log_sum_exp = scores.log_sum_exp.raw(),
                            .entropy = scores.entropy.raw(),
                            .row_start = selection.row_start.data<int32_t>(),
                            .expert = selection.expert.data<int32_t>(),
                            .mask = mask_of(mask, tokens),
                            .sums = flat.data(),
                            .tokens = tokens,
                            .experts = experts,
                            .pair_normalized = pair_normalized,
                            .type = scores.probabilities.dtype()});
  auto part = [&](size_t begin, size_t size) {
    auto from = flat.begin() + static_cast<std::ptrdiff_t>(begin);
    return std::vector<double>(from, from + static_cast<std::ptrdiff_t>(size));
  };
  return {.single = part(0, e),
          .assigned = part(e, e),
          .probability = part(2 * e, e),
          .by_count = part(3 * e, e + 1),
          .gap = part(gap, bins),
          .tokens = flat[scalars],
          .entropy = flat[scalars + 1],
          .log_sum_exp_squared = flat[scalars + 2]};
}

}  // namespace adagate
