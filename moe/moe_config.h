// Settings of Mixture-of-Experts layers (YAML section moe).
#pragma once

#include <cstdint>
#include <string>

#include "core/base/fields.h"
#include "core/base/named.h"
#include "moe/balance_loss.h"
#include "moe/policy_table.h"

namespace adagate {

// How tokens choose experts. R is the softmax of the gate's logits over all experts (fp32),
// R_1 >= R_2 >= ... its sorted values.
struct GateConfig {
  std::string policy = "adaptive";
  int64_t k = 2;
  double threshold = 0.1;
  std::string normalize = "all";
  std::string combine = "raw";
  int64_t k_max = 2;
  double two_expert_share = 0.2;

  template <class V, class Self>
  static void visit(V& v, Self& s) {
    v.field("policy", s.policy, help_of(kGatingPolicies), one_of(names_of(kGatingPolicies)));
    v.field("k", s.k, "experts per token (topk)", between(1, 65536));
    v.field("threshold", s.threshold,
            "largest gap R_1 - R_r at which expert r joins (adaptive); below 0 the policy is top1, "
            "from 1 on it takes k_max experts");
    v.field("normalize", s.normalize,
            "probabilities whose gap is compared (adaptive); all: softmax over all experts; pair: "
            "R_1 and R_r scaled to sum to 1",
            one_of({"all", "pair"}));
    v.field("combine", s.combine,
            "weights of the experts' outputs; raw: the probabilities R; renormalized: R scaled to "
            "sum to 1 over the chosen experts",
            one_of({"raw", "renormalized"}));
    v.field("k_max", s.k_max, "most experts of one token (adaptive)", between(1, 65536));
    v.field("two_expert_share", s.two_expert_share,
            "share of tokens that get a second expert (random_one_or_two)", between(0.0, 1.0));
  }
};

// Auxiliary losses that keep the load of the experts even.
struct BalanceConfig {
  std::string loss = "auto";  // see MoeConfig::resolved_balance()
  double coefficient = 0.01;
  double z_coefficient = 0.0;
  std::string scope = "global_batch";

  static std::vector<std::string> words() {
    std::vector<std::string> all = names_of(kBalanceLosses);
    all.insert(all.begin(), "auto");
    return all;
  }

  template <class V, class Self>
  static void visit(V& v, Self& s) {
    v.field("loss", s.loss,
            help_of(kBalanceLosses) +
                "; auto: what fits moe.gate, paper where tokens may take a single expert, else "
                "switch; with one expert none",
            one_of(words()));
    v.field("coefficient", s.coefficient, "factor of the balance loss, per MoE layer",
            at_least(0.0));
    v.field("z_coefficient", s.z_coefficient,
            "factor of the z-loss (mean squared log-sum-exp of the gate's logits); 0: off",
            at_least(0.0));
    v.field("scope", s.scope,
            "tokens over which shares and means are taken; global_batch: all of the step, the same "
            "on any number of ranks and accumulation steps; micro_batch: those of one "
            "accumulation step",
            one_of({"global_batch", "micro_batch"}));
  }
};

struct MoeConfig {
  int64_t experts = 0;  // 0: dense model
  int64_t every = 1;
  int64_t expert_feed_forward = 0;  // 0: model.feed_forward
  GateConfig gate;
  BalanceConfig balance;

  ExpertsPerToken experts_per_token() const {
    return gating_policy_entry(gate.policy).takes(gate, experts);
  }
  // Whether no token takes a single expert, whatever its probabilities.
  bool never_single() const { return experts_per_token().least > 1; }

  // Whether block `layer` (from 0) holds experts.
  bool is_moe_layer(int64_t layer) const { return experts > 0 && (layer + 1) % every == 0; }
  // How many of `layers` blocks do.
  int64_t moe_layers(int64_t layers) const { return experts > 0 ? layers / every : 0; }

  // The balance losses with `auto` filled in.
  BalanceConfig resolved_balance() const {
    BalanceConfig resolved = balance;
    if (balance.loss == "auto")
      resolved.loss = experts < 2 ? "none" : never_single() ? "switch" : "paper";
    return resolved;
  }

  template <class V, class Self>
  static void visit(V& v, Self& s) {
    v.field("experts", s.experts, "experts of each MoE layer; 0: a dense model", between(0, 65536));
    v.field("every", s.every, "one MoE layer in every n blocks, the last of each n",
            between(1, 10000));
    v.field("expert_feed_forward", s.expert_feed_forward,
            "inner width of one expert; 0: that of the dense feed-forward", between(0, 10000000));
    v.section("gate", s.gate, "how a token chooses its experts");
    v.section("balance", s.balance, "auxiliary losses that keep the experts' load even");
  }
};

}  // namespace adagate
