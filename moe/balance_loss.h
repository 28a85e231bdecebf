// Auxiliary losses that keep the load of the experts even, over the sums of all real tokens t of
// their scope (T of them), for each MoE layer:
//   balance  c E sum_e f_e p_e, p_e the mean probability of expert e, f_e its share of what the
//            loss counts; nothing counted: zero
//   z        c_z mean_t logsumexp(logits_t)^2
// Their gradients for the tokens of a rank are local, exact and unscaled: summed over ranks and
// micro-batches they are the gradient of the loss, whatever the layout.
#pragma once

#include <array>
#include <string_view>
#include <vector>

namespace adagate {

struct RoutingSums;
struct RoutingLossGradient;
struct BalanceConfig;

// A balance loss times `factor`, and its gradient [experts] by the probabilities of one token,
// empty when it is zero. Null: no loss.
struct BalanceLoss {
  std::string_view name;
  std::string_view help;
  double (*value)(const RoutingSums& sums, double factor) = nullptr;
  std::vector<double> (*gradient)(const RoutingSums& sums, double factor) = nullptr;
};

double paper_loss(const RoutingSums& sums, double factor);
std::vector<double> paper_loss_gradient(const RoutingSums& sums, double factor);
double switch_loss(const RoutingSums& sums, double factor);
std::vector<double> switch_loss_gradient(const RoutingSums& sums, double factor);

// A new loss is a line here; tests/moe/test_balance_losses.cpp runs over the table.
inline constexpr std::array kBalanceLosses = {
    BalanceLoss{"paper",
                "experts * sum of (share of the single-expert tokens) * (mean probability)",
                paper_loss, paper_loss_gradient},
    BalanceLoss{"switch", "the same with the share of all assignments", switch_loss,
                switch_loss_gradient},
    BalanceLoss{"none", "no balance loss"},
};

// Throws Error on an unknown name, listing the known ones.
const BalanceLoss& balance_loss_of(std::string_view name);

// The losses of a run.
class BalanceLosses {
 public:
  // `config` with a loss of its own, not `auto`: MoeConfig::resolved_balance(). Throws Error on
  // unknown words.
  explicit BalanceLosses(const BalanceConfig& config);

  bool active() const { return coefficient_ > 0 || z_coefficient_ > 0; }
  // Each micro-batch is a scope of its own, not the whole step.
  bool per_micro_batch() const { return per_micro_batch_; }

  // One layer and scope of `scopes`: their losses are averaged.
  struct Values {
    double balance = 0, z = 0;
  };
  Values values(const RoutingSums& sums, int64_t scopes) const;
  RoutingLossGradient gradient(const RoutingSums& sums, int64_t scopes) const;

 private:
  const BalanceLoss* loss_;
  double coefficient_, z_coefficient_;
  bool per_micro_batch_;
};

}  // namespace adagate
