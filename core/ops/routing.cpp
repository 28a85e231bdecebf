#include "core/ops/routing.h"

#include <algorithm>
#include <numeric>

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

int64_t sum_of(const std::vector<int64_t>& counts) {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

// Keeps what backward needs, nothing of the tape.
struct SavedRouting {
  Tensor x, weight, probabilities, log_sum_exp, row_start, expert, mask;
  bool renormalize;
  Gradient dx, dweight;
  RoutingLossGradient losses;

  void backward(const Tensor& dy) const;
};

void SavedRouting::backward(const Tensor& dy) const {
  // Asked for only now: the losses look at the whole batch, which had not been routed in forward.
  Tensor loss = losses ? losses() : Tensor();
  if (!dy && !loss) return;
  int64_t tokens = probabilities.dim(0), experts = probabilities.dim(1);
  int64_t stride = (experts + kGateExpertTile - 1) / kGateExpertTile * kGateExpertTile;
  check(!loss || loss.numel() == experts + 1, "routing: a gradient of losses {} for {} experts",
        loss.shape(), experts);
  Tensor dlogits = Tensor::empty({tokens, stride}, probabilities.dtype(), x.device());
  launch_on(x.device(), RoutingBackwardArgs{.probabilities = probabilities.raw(),
                                            .log_sum_exp = log_sum_exp.raw(),
                                            .row_start = row_start.data<int32_t>(),
                                            .expert = expert.data<int32_t>(),
                                            .dweight = dy.raw(),
                                            .mask = mask_of(mask, tokens),
                                            .loss_gradient = loss.data<double>(),
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

Selection make_selection(std::span<const int32_t> row_start, std::span<const int32_t> expert,
                         int64_t experts, Device device) {
  std::vector<int64_t> counts(static_cast<size_t>(experts));
  for (int32_t e : expert) {
    check(e >= 0 && e < experts, "routing: expert {} of {}", e, experts);
    ++counts[static_cast<size_t>(e)];
  }
  return {.row_start = Tensor::from(row_start, {static_cast<int64_t>(row_start.size())}, device),
          .expert = Tensor::from(expert, {static_cast<int64_t>(expert.size())}, device),
          .counts = Tensor::from(std::span<const int64_t>(counts), {experts}, device),
          .host_counts = counts};
}

void Selection::read_counts() {
  // The host must wait here for the device; what it learns fits the buffer to what is used.
  if (!host_counts.empty()) return;
  host_counts = counts.to_host<int64_t>();
  expert = expert.slice(0, sum_of(host_counts));
}

Selection select_experts(const GateScores& scores, const SelectionRule& rule, const Tensor& mask,
                         const Tensor& addresses, const Tensor& bias) {
  int64_t tokens = scores.probabilities.dim(0), experts = scores.probabilities.dim(1);
  check(rule.k_max >= 1 && rule.k_max <= experts, "routing: {} experts per token of {}", rule.k_max,
        experts);
  bool random = rule.kind == SelectionRule::Kind::random_second;
  check(!random || (addresses && addresses.numel() == tokens),
        "routing: a random choice needs the id of each of the {} tokens, {} given", tokens,
        addresses ? addresses.numel() : 0);
  check(!bias || bias.numel() == experts, "routing: a bias of {} scores for {} experts",
        bias.numel(), experts);
  Device device = scores.probabilities.device();
  Tensor chosen = Tensor::empty({tokens, rule.k_max}, DType::i32, device);
  Selection selection{.row_start = Tensor::empty({tokens + 1}, DType::i32, device),
                      .expert = {},
                      .counts = Tensor::empty({experts}, DType::i64, device),
                      .host_counts = {}};
  launch_on(device, SelectExpertsArgs{.probabilities = scores.probabilities.raw(),
                                      .bias = bias ? bias.data<float>() : nullptr,
                                      .mask = mask_of(mask, tokens),
                                      .addresses = random ? addresses.data<int64_t>() : nullptr,
                                      .chosen = chosen.data<int32_t>(),
                                      .row_start = selection.row_start.data<int32_t>(),
                                      .counts = selection.counts.data<int64_t>(),
                                      .tokens = tokens,
                                      .experts = experts,
                                      .rule = rule,
                                      .type = scores.probabilities.dtype()});
  // Of its own memory the host knows at once. On a device it would wait: room for the most there
  // can be costs less.
  if (device.is_cpu()) selection.host_counts = selection.counts.to_host<int64_t>();
  int64_t rows =
      selection.host_counts.empty() ? tokens * rule.k_max : sum_of(selection.host_counts);
  selection.expert = Tensor::empty({rows}, DType::i32, device);
  launch_on(device, CompactSelectionArgs{.chosen = chosen.data<int32_t>(),
                                         .row_start = selection.row_start.data<int32_t>(),
                                         .expert = selection.expert.data<int32_t>(),
                                         .tokens = tokens,
                                         .k_max = rule.k_max});
  return selection;
}

Tensor routing_weights(const Tensor& x, const Tensor& weight, const GateScores& scores,
                       const Selection& selection, bool renormalize, const Tensor& mask,
                       RoutingLossGradient losses) {
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

Tensor routing_sums(const GateScores& scores, const Selection& selection, const Tensor& mask,
                    bool pair_normalized) {
  int64_t tokens = tokens_of(selection), experts = scores.probabilities.dim(1);
  Device device = scores.probabilities.device();
  Tensor sums = Tensor::empty({routing_sums_size(experts)}, DType::f64, device);
  launch_on(device, RoutingSumsArgs{.probabilities = scores.probabilities.raw(),
                                    .log_sum_exp = scores.log_sum_exp.raw(),
                                    .entropy = scores.entropy.raw(),
                                    .row_start = selection.row_start.data<int32_t>(),
                                    .expert = selection.expert.data<int32_t>(),
                                    .mask = mask_of(mask, tokens),
                                    .sums = sums.data<double>(),
                                    .tokens = tokens,
                                    .experts = experts,
                                    .pair_normalized = pair_normalized,
                                    .type = scores.probabilities.dtype()});
  return sums;
}

RoutingSums unpack_routing_sums(std::span<const double> sums, int64_t experts) {
  auto e = static_cast<size_t>(experts);
  check(static_cast<int64_t>(sums.size()) == routing_sums_size(experts),
        "routing sums: {} numbers for {} experts", sums.size(), experts);
  auto take = [&](size_t size) {
    std::vector<double> part(sums.begin(), sums.begin() + static_cast<std::ptrdiff_t>(size));
    sums = sums.subspan(size);
    return part;
  };
  RoutingSums all{.single = take(e),
                  .assigned = take(e),
                  .probability = take(e),
                  .by_count = take(e + 1),
                  .gap = take(static_cast<size_t>(kGapBins))};
  all.tokens = sums[0];
  all.entropy = sums[1];
  all.log_sum_exp_squared = sums[2];
  return all;
}

}  // namespace adagate
