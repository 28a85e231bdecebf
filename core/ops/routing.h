// The gate of a Mixture-of-Experts layer: scores, choice of experts, weights of their outputs, and
// the sums that balance losses and statistics need. A choice is a sparse tokens x experts matrix in
// CSR form, so that every token may take its own number of experts.
//
// Everything is computed in the gate weight's type (f32, or f64 for gradient checks) whatever the
// type of x: near the threshold bf16 spacing would flip decisions. A token's result does not depend
// on its place in the batch. Padding tokens (mask 0) get no expert and enter no sum.
#pragma once

#include <array>
#include <functional>
#include <span>
#include <vector>

#include "core/autograd/tape.h"
#include "core/base/hd.h"
#include "core/base/rng.h"
#include "core/device/launch.h"
#include "core/tensor/tensor.h"

namespace adagate {

struct GateScores {
  Tensor probabilities;  // [tokens, experts], softmax of the logits x W
  Tensor log_sum_exp;    // [tokens], of the logits
  Tensor entropy;        // [tokens], in nats
};

// x [tokens, width], weight [width, experts]. Not recorded: routing_weights() carries the gradient.
GateScores gate_scores(const Tensor& x, const Tensor& weight);

// How many of a token's most probable experts it takes; ties go to the lower index.
struct SelectionRule {
  enum class Kind : uint8_t {
    fixed,         // k_max
    gap,           // expert r joins while R_1 - R_r <= threshold (method: R_i - R_j <= T)
    random_second  // two for a random `share` of the tokens, else one
  } kind = Kind::fixed;
  int64_t k_max = 1;
  double threshold = 0;          // gap
  bool pair_normalized = false;  // gap: compare (R_1 - R_r) / (R_1 + R_r)
  double share = 0;              // random_second
  Rng rng = {};                  // random_second: addressed by the token
};

// The host need not know how many assignments there are, as asking a device makes it wait. Where it
// knows, buffers of assignments are exactly as long; where it does not, they have room for as many
// as there can be. The room past the last assignment is nobody's: kernels go by row_start or by
// GroupOffsets, which lie on the device, and neither read nor write there.
struct Selection {
  Tensor row_start;  // i32 [tokens + 1]
  Tensor expert;     // i32 [assignments, or room for them], a token's most probable expert first
  Tensor counts;     // i64 [experts], assignments of each
  std::vector<int64_t> host_counts;  // the same; empty: the host has not read them

  // For who needs them on the host (lengths of messages, products launched one by one): reads them,
  // unless it has, and leaves the room out. Before anything is made from the selection.
  void read_counts();
};

// For choices made on the host: copies them to the device, with their counts.
Selection make_selection(std::span<const int32_t> row_start, std::span<const int32_t> expert,
                         int64_t experts, Device device = {});

// mask u8 [tokens] or empty; addresses i64 [tokens], needed by random_second only. bias f32
// [experts] or empty: the choice is made by probability + bias, which no weight and no sum sees.
// Only the CPU's choices come with host_counts, where they cost nothing and save the room.
Selection select_experts(const GateScores& scores, const SelectionRule& rule, const Tensor& mask,
                         const Tensor& addresses, const Tensor& bias = {});

// The gradient of the auxiliary losses, the same for each real token: f64 [experts + 1] on the
// device, dL/dp_te of each expert and dL/d(lse_t^2); empty: none. Known only when the counts of the
// whole batch are, hence asked for during backward.
using RoutingLossGradient = std::function<Tensor()>;

// Weight of each assignment [as selection.expert]: the probability, or with `renormalize` the
// probability over the sum of the token's chosen ones. Differentiable in x and the gate weight; its
// backward runs even when no gradient reaches the weights, to add that of the losses (null: none).
Tensor routing_weights(const Tensor& x, const Tensor& weight, const GateScores& scores,
                       const Selection& selection, bool renormalize, const Tensor& mask,
                       RoutingLossGradient losses);

// Upper ends of the bins of RoutingSums::gap, finer where a threshold would stand. A gap on an end
// belongs to the bin below it, as a gap of just the threshold is one of two experts.
inline constexpr std::array kGapEdges = {0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.125, 0.15, 0.2, 0.25,
                                         0.3,  0.35, 0.4,  0.45, 0.5,   0.6, 0.7,   0.8,  0.9, 1.0};
inline constexpr int64_t kGapBins = kGapEdges.size();

// Sums over the real tokens of a batch; sums of sums are sums of the joined batches.
struct RoutingSums {
  std::vector<double> single;       // [experts] tokens routed to this expert only
  std::vector<double> assigned;     // [experts] assignments
  std::vector<double> probability;  // [experts]
  std::vector<double> by_count;     // [experts + 1] tokens that took 0, 1, 2, .. experts
  std::vector<double> gap = {};     // [kGapBins] tokens by R_1 - R_2, whatever the selection
  double tokens = 0;
  double entropy = 0;
  double log_sum_exp_squared = 0;
};
// pair_normalized: the gap is (R_1 - R_2) / (R_1 + R_2), as in SelectionRule.
Tensor routing_sums(const GateScores& scores, const Selection& selection, const Tensor& mask,
                    bool pair_normalized = false);  // f64 [routing_sums_size(experts)]
constexpr int64_t routing_sums_size(int64_t experts) {
  constexpr int64_t kScalars = 3;
  return 4 * experts + 1 + kGapBins + kScalars;
}
// The parts of what routing_sums() returns, for those who stand where it is.
template <class T>
struct RoutingSumsParts {
  T* sums = nullptr;
  int64_t experts = 0;
  ADAGATE_HD T* single() const { return sums; }
  ADAGATE_HD T* assigned() const { return sums + experts; }
  ADAGATE_HD T* probability() const { return sums + 2 * experts; }
  ADAGATE_HD T* by_count() const { return sums + 3 * experts; }
  ADAGATE_HD T* gap() const { return sums + 4 * experts + 1; }
  ADAGATE_HD T& tokens() const { return gap()[kGapBins]; }
  ADAGATE_HD T& entropy() const { return gap()[kGapBins + 1]; }
  ADAGATE_HD T& log_sum_exp_squared() const { return gap()[kGapBins + 2]; }
};
using RoutingSumsView = RoutingSumsParts<const double>;
// From the host's copy of what routing_sums() returns.
RoutingSums unpack_routing_sums(std::span<const double> sums, int64_t experts);

// Kernels. `type` is that of the gate (f32 or f64).

struct GateScoresArgs {
  static constexpr std::string_view kKernel = "gate_scores";
  const void* x = nullptr;       // [tokens, width] of x_type
  const void* weight = nullptr;  // [width, experts] of type
  void* probabilities = nullptr;
  void* log_sum_exp = nullptr;
  void* entropy = nullptr;
  int64_t tokens = 0, width = 0, experts = 0;
  DType x_type = DType::f32, type = DType::f32;
};
void launch(CpuStream&, const GateScoresArgs&);
void launch(CudaStream&, const GateScoresArgs&);

// chosen [tokens, rule.k_max] by falling probability; row_start and counts follow from it.
struct SelectExpertsArgs {
  static constexpr std::string_view kKernel = "select_experts";
  const void* probabilities = nullptr;
  const float* bias = nullptr;  // [experts], added to each token's probabilities; null: none
  const uint8_t* mask = nullptr;
  const int64_t* addresses = nullptr;
  int32_t* chosen = nullptr;
  int32_t* row_start = nullptr;  // [tokens + 1]
  int64_t* counts = nullptr;     // [experts]
  int64_t tokens = 0, experts = 0;
  SelectionRule rule;
  DType type = DType::f32;
};
void launch(CpuStream&, const SelectExpertsArgs&);
void launch(CudaStream&, const SelectExpertsArgs&);

// expert[row_start[t] + i] = chosen[t, i]
struct CompactSelectionArgs {
  static constexpr std::string_view kKernel = "compact_selection";
  const int32_t* chosen = nullptr;
  const int32_t* row_start = nullptr;
  int32_t* expert = nullptr;
  int64_t tokens = 0, k_max = 0;
};
void launch(CpuStream&, const CompactSelectionArgs&);
void launch(CudaStream&, const CompactSelectionArgs&);

struct RoutingWeightsArgs {
  static constexpr std::string_view kKernel = "routing_weights";
  const void* probabilities = nullptr;
  const int32_t* row_start = nullptr;
  const int32_t* expert = nullptr;
  void* weight = nullptr;  // [assignments]
  int64_t tokens = 0, experts = 0;
  bool renormalize = false;
  DType type = DType::f32;
};
void launch(CpuStream&, const RoutingWeightsArgs&);
void launch(CudaStream&, const RoutingWeightsArgs&);

// dlogits [tokens, stride] = J_softmax^T (dp of the weights + loss_gradient)
//                            + 2 lse p * loss_gradient[experts]; zero for padding and beyond
// experts.
struct RoutingBackwardArgs {
  static constexpr std::string_view kKernel = "routing_backward";
  const void* probabilities = nullptr;
  const void* log_sum_exp = nullptr;
  const int32_t* row_start = nullptr;
  const int32_t* expert = nullptr;
  const void* dweight = nullptr;  // [assignments]; null: none
  const uint8_t* mask = nullptr;
  const double* loss_gradient = nullptr;  // [experts + 1]: see RoutingLossGradient; null: none
  void* dlogits = nullptr;
  int64_t tokens = 0, experts = 0, stride = 0;
  bool renormalize = false;
  DType type = DType::f32;
};
void launch(CpuStream&, const RoutingBackwardArgs&);
void launch(CudaStream&, const RoutingBackwardArgs&);

// dx (+)= dlogits W^T and dW (+)= x^T dlogits; a null destination is left out. The type of dx is
// that of x.
struct GateProductBackwardArgs {
  static constexpr std::string_view kKernel = "gate_product_backward";
  const void* x = nullptr;
  const void* weight = nullptr;
  const void* dlogits = nullptr;  // [tokens, stride], zero beyond experts
  void* dx = nullptr;
  void* dweight = nullptr;
  int64_t tokens = 0, width = 0, experts = 0, stride = 0;
  bool accumulate_dx = false, accumulate_dweight = false;
  DType x_type = DType::f32, type = DType::f32;
};
void launch(CpuStream&, const GateProductBackwardArgs&);
void launch(CudaStream&, const GateProductBackwardArgs&);
constexpr int64_t kGateExpertTile = 8;  // stride is a multiple of it

struct RoutingSumsArgs {
  static constexpr std::string_view kKernel = "routing_sums";
  const void* probabilities = nullptr;
  const void* log_sum_exp = nullptr;
  const void* entropy = nullptr;
  const int32_t* row_start = nullptr;
  const int32_t* expert = nullptr;
  const uint8_t* mask = nullptr;
  double* sums = nullptr;  // single, assigned, probability, by_count, gap, the three scalars
  int64_t tokens = 0, experts = 0;
  bool pair_normalized = false;
  DType type = DType::f32;
};
void launch(CpuStream&, const RoutingSumsArgs&);
void launch(CudaStream&, const RoutingSumsArgs&);

}  // namespace adagate
