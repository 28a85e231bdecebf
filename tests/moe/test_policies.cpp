// What every gating policy must keep to, over the policy table; and the rules of single policies.
#include <algorithm>
#include <numeric>
#include <set>

#include "core/nn/parameter_store.h"
#include "moe/gate.h"
#include "moe/routing_step.h"
#include "tests/moe/moe_inputs.h"
#include "tests/support/catch.h"
#include "tests/support/draws.h"

namespace adagate::test {
namespace {

constexpr int64_t kSizes[] = {0, 1, 31, 32, 33, 1000};

GateConfig config_of(std::string_view policy) {
  GateConfig config;
  config.policy = std::string(policy);
  config.k = 3;
  config.two_expert_share = 0.4;
  return config;
}

Tensor ids_from(int64_t first, int64_t count) {
  Tensor ids = Tensor::empty({count}, DType::i64);
  for (int64_t i = 0; i < count; ++i) ids.data<int64_t>()[i] = first + i;
  return ids;
}

Selection choose(const GatingPolicy& policy, const GateScores& scores, const Tensor& mask = {},
                 const Tensor& ids = {}, uint64_t seed = 7) {
  return policy.choose({.scores = scores,
                        .mask = mask,
                        .addresses = ids ? ids : ids_from(0, scores.probabilities.dim(0)),
                        .seed = seed,
                        .step = 3,
                        .layer = 1});
}

Tensor rows_of(const Tensor& x, const std::vector<int64_t>& order) {
  Tensor y = empty_like(x);
  for (size_t i = 0; i < order.size(); ++i) {
    auto at = static_cast<int64_t>(i);
    y.slice(at, at + 1).copy_from(x.slice(order[i], order[i] + 1));
  }
  return y;
}

// Gate scores with the given probabilities.
GateScores scores_with(std::vector<std::vector<float>> rows) {
  auto tokens = static_cast<int64_t>(rows.size());
  auto experts = static_cast<int64_t>(rows[0].size());
  std::vector<float> flat;
  for (auto& row : rows) flat.insert(flat.end(), row.begin(), row.end());
  return {Tensor::from(flat, {tokens, experts}), Tensor::zeros({tokens}, DType::f32),
          Tensor::zeros({tokens}, DType::f32)};
}

Selection adaptive(const GateScores& scores, double threshold, const std::string& normalize = "all",
                   int64_t k_max = 2) {
  GateConfig config;
  config.threshold = threshold;
  config.normalize = normalize;
  config.k_max = k_max;
  return choose(*make_gating_policy(config, scores.probabilities.dim(1)), scores);
}

// Where in the run a gate decides at random.
struct Draw {
  int64_t layer = 0;
  uint64_t seed = 7;
  int64_t step = 0;
  int64_t first_row = 0;  // -1: no addresses
};

// Which of `tokens` a gate gives a second expert, for a share of one half.
std::vector<bool> second_experts(const Draw& draw, int64_t tokens = 2000) {
  GateConfig config = config_of("random_one_or_two");
  config.two_expert_share = 0.5;
  Gate gate(24, 8, draw.layer, config, 0.3);
  ParameterStore store(gate, {});
  store.initialize(1);
  StepContext context{.seed = draw.seed, .step = draw.step};
  TokenRows rows = padded_rows(1, tokens);
  if (draw.first_row >= 0) rows.addresses = ids_from(draw.first_row, tokens);
  RoutingPlan plan = gate.forward(random_normal({tokens, 24}, 1).to(DType::f32), context, rows);
  std::vector<bool> second;
  for (int64_t t = 0; t < tokens; ++t) second.push_back(experts_of(plan.selection, t).size() == 2);
  return second;
}

}  // namespace

TEST_CASE("every policy gives a well-formed plan", "[moe]") {
  for (const auto& entry : kGatingPolicies)
    for (int64_t experts : {1, 3, 8, 17}) {
      if (entry.name == "topk" && experts < 3) continue;
      auto policy = entry.make(config_of(entry.name), experts);
      for (int64_t tokens : kSizes)
        for (bool padded : {false, true}) {
          INFO(entry.name << ", " << experts << " experts, " << tokens << " tokens, " << padded);
          GateScores scores = random_scores(tokens, experts);
          Tensor mask = padded ? padded_mask(tokens) : Tensor();
          Selection s = choose(*policy, scores, mask);
          REQUIRE(s.row_start.numel() == tokens + 1);
          REQUIRE(ints(s.row_start).front() == 0);
          REQUIRE(ints(s.row_start).back() == s.expert.numel());
          const float* p = scores.probabilities.data<float>();
          bool rows_fine = true;
          for (int64_t t = 0; t < tokens; ++t) {
            auto mine = experts_of(s, t);
            if (padded && !mask.data<uint8_t>()[t]) {
              rows_fine = rows_fine && mine.empty();
              continue;
            }
            std::set<int32_t> distinct(mine.begin(), mine.end());
            rows_fine = rows_fine && !mine.empty() && distinct.size() == mine.size() &&
                        static_cast<int64_t>(mine.size()) <= policy->k_max() &&
                        *distinct.begin() >= 0 && *distinct.rbegin() < experts;
            // Falling probability, and nobody left out is more probable than the last one in.
            for (int32_t e = 0; e < experts; ++e)
              if (!distinct.count(e))
                rows_fine = rows_fine && p[t * experts + e] <= p[t * experts + mine.back()];
            for (size_t i = 1; i < mine.size(); ++i)
              rows_fine = rows_fine && p[t * experts + mine[i]] <= p[t * experts + mine[i - 1]];
          }
          CHECK(rows_fine);
        }
    }
}

TEST_CASE("a token takes as many experts as the table says", "[moe]") {
  constexpr int64_t kTokens = 4000, kExperts = 8;
  GateScores scores = random_scores(kTokens, kExperts);
  for (const auto& entry : kGatingPolicies)
    for (bool most : {false, true}) {
      INFO(entry.name << (most ? ", all join" : ""));
      GateConfig config = config_of(entry.name);
      if (most) config.threshold = config.two_expert_share = 1;
      ExpertsPerToken takes = entry.takes(config, kExperts);
      Selection s = choose(*entry.make(config, kExperts), scores);
      std::vector<double> by_count = sums_of(scores, s, {}).by_count;
      double within = 0;
      for (int64_t k = takes.least; k <= takes.most; ++k)
        within += by_count[static_cast<size_t>(k)];
      CHECK(within == kTokens);
      CHECK(by_count[static_cast<size_t>(takes.least)] > 0);
      CHECK(by_count[static_cast<size_t>(takes.most)] > 0);
      double mean = static_cast<double>(s.expert.numel()) / kTokens;
      if (entry.name == "adaptive") {  // it depends on the tokens
        CHECK(takes.expected == static_cast<double>(takes.least));
      } else {
        CHECK(mean == Approx(takes.expected).margin(0.03));
      }
      CHECK((takes.least > 1) ==
            (entry.name == "top2" || entry.name == "topk" || (most && entry.name != "top1")));
    }
}

TEST_CASE("weights lie in (0, 1], and sum to 1 when renormalized", "[moe]") {
  for (const auto& entry : kGatingPolicies) {
    auto policy = entry.make(config_of(entry.name), 8);
    Tensor x = random_normal({200, 24}, 1).to(DType::f32);
    Tensor w = random_normal({24, 8}, 2, 0.25).to(DType::f32);
    GateScores scores = gate_scores(x, w);
    Selection s = choose(*policy, scores);
    for (bool renormalize : {false, true}) {
      INFO(entry.name << " " << renormalize);
      Tensor weight = routing_weights(x, w, scores, s, renormalize, {}, nullptr);
      for (int64_t t = 0; t < 200; ++t) {
        double sum = 0;
        for (int32_t i = ints(s.row_start)[static_cast<size_t>(t)];
             i < ints(s.row_start)[static_cast<size_t>(t) + 1]; ++i) {
          float v = weight.data<float>()[i];
          REQUIRE((v > 0 && v <= 1));
          sum += v;
        }
        if (renormalize) REQUIRE(sum == Approx(1.0).margin(1e-6));
        if (renormalize && experts_of(s, t).size() == 1) REQUIRE(sum == 1.0);
      }
    }
  }
}

TEST_CASE("the sums are those of the plan", "[moe]") {
  for (const auto& entry : kGatingPolicies)
    for (int64_t tokens : kSizes) {
      INFO(entry.name << ", " << tokens << " tokens");
      constexpr int64_t kExperts = 6;
      auto policy = entry.make(config_of(entry.name), kExperts);
      GateScores scores = random_scores(tokens, kExperts);
      Tensor mask = padded_mask(tokens);
      Selection s = choose(*policy, scores, mask);
      RoutingSums sums = sums_of(scores, s, mask);
      RoutingSums expected{.single = std::vector<double>(kExperts),
                           .assigned = std::vector<double>(kExperts),
                           .probability = std::vector<double>(kExperts),
                           .by_count = std::vector<double>(kExperts + 1),
                           .gap = std::vector<double>(kGapBins)};
      for (int64_t t = 0; t < tokens; ++t) {
        if (!mask.data<uint8_t>()[t]) continue;
        auto mine = experts_of(s, t);
        for (int32_t e : mine) expected.assigned[static_cast<size_t>(e)] += 1;
        if (mine.size() == 1) expected.single[static_cast<size_t>(mine[0])] += 1;
        expected.by_count[mine.size()] += 1;
        expected.tokens += 1;
        for (int64_t e = 0; e < kExperts; ++e) {
          double p = scores.probabilities.data<float>()[t * kExperts + e];
          expected.probability[static_cast<size_t>(e)] += p;
          expected.entropy -= p * std::log(p);
        }
      }
      CHECK(sums.single == expected.single);
      CHECK(sums.assigned == expected.assigned);
      CHECK(sums.by_count == expected.by_count);
      CHECK(sums.tokens == expected.tokens);
      CHECK(sums.entropy == Approx(expected.entropy).epsilon(1e-5));
      for (size_t e = 0; e < kExperts; ++e)
        CHECK(sums.probability[e] == Approx(expected.probability[e]).epsilon(1e-12));
    }
}

TEST_CASE("the gaps tell the share of single-expert tokens under any threshold", "[moe]") {
  constexpr int64_t kTokens = 700, kExperts = 4;
  GateScores scores = random_scores(kTokens, kExperts);
  // Gaps of exactly a threshold, and the largest there is.
  auto* p = scores.probabilities.data<float>();
  for (int64_t t = 0; t < kTokens; t += 7) {
    float gap = t % 2 ? 0.5f : t == 0 ? 1.0f : static_cast<float>(kGapEdges[t / 7 % kGapBins]);
    std::fill_n(p + t * kExperts, kExperts, 0.0f);
    p[t * kExperts + 1] = gap;
  }
  Tensor mask = padded_mask(kTokens);
  for (bool pair : {false, true}) {
    std::vector<double> gap;
    double below = 0;
    for (int64_t bin = 0; bin < kGapBins; ++bin) {
      GateConfig config{.policy = "adaptive"};
      config.threshold = kGapEdges[static_cast<size_t>(bin)];
      config.normalize = pair ? "pair" : "all";
      Selection s = choose(*make_adaptive_policy(config, kExperts), scores, mask);
      RoutingSums sums = sums_of(scores, s, mask, pair);
      INFO("pair " << pair << ", threshold " << config.threshold);
      if (gap.empty()) gap = sums.gap;
      CHECK(sums.gap == gap);  // whatever the selection
      CHECK(std::accumulate(gap.begin(), gap.end(), 0.0) == sums.tokens);
      below += gap[static_cast<size_t>(bin)];
      CHECK(below == sums.by_count[2]);
    }
    CHECK(std::count(gap.begin(), gap.end(), 0.0) <= kGapBins / 2);
  }
}

TEST_CASE("one expert has no second: the gap is the largest", "[moe]") {
  GateScores scores = random_scores(30, 1);
  Selection s = choose(*make_fixed_policy(1, 1), scores, {});
  CHECK(sums_of(scores, s, {}).gap.back() == 30);
}

TEST_CASE("the same seed gives the same plan; permuted tokens a permuted plan", "[moe]") {
  constexpr int64_t kTokens = 100;
  std::vector<int64_t> order;
  for (int64_t i = 0; i < kTokens; ++i) order.push_back(i * 37 % kTokens);
  for (const auto& entry : kGatingPolicies) {
    INFO(entry.name);
    auto policy = entry.make(config_of(entry.name), 8);
    Tensor x = random_normal({kTokens, 24}, 1).to(DType::f32);
    Tensor w = random_normal({24, 8}, 2, 0.25).to(DType::f32);
    Tensor ids = ids_from(5000, kTokens);
    Selection first = choose(*policy, gate_scores(x, w), {}, ids);
    CHECK(same(first, choose(*policy, gate_scores(x, w), {}, ids)));
    Selection permuted =
        choose(*policy, gate_scores(rows_of(x, order), w), {}, rows_of(ids, order));
    bool equal = true;
    for (size_t i = 0; i < order.size(); ++i)
      equal = equal && experts_of(permuted, static_cast<int64_t>(i)) == experts_of(first, order[i]);
    CHECK(equal);
  }
}

TEST_CASE("a token's scores don't depend on its place in the batch, to the bit", "[moe]") {
  for (DType type : {DType::f32, DType::bf16}) {
    Tensor x = random_normal({37, 51}, 1).to(type);
    Tensor w = random_normal({51, 19}, 2).to(DType::f32);
    GateScores all = gate_scores(x, w);
    for (int64_t t = 0; t < 37; ++t) {
      GateScores one = gate_scores(x.slice(t, t + 1), w);
      CHECK(same_bits(one.probabilities, all.probabilities.slice(t, t + 1)));
      CHECK(same_bits(one.log_sum_exp, all.log_sum_exp.slice(t, t + 1)));
    }
  }
}

TEST_CASE("scores are the softmax of x W", "[moe]") {
  for (int64_t experts : {1, 2, 8, 16, 17, 40}) {
    Tensor x = random_normal({21, 50}, 1), w = random_normal({50, experts}, 2, 0.3);
    GateScores f64 = gate_scores(x, w);
    GateScores f32 = gate_scores(x.to(DType::f32), w.to(DType::f32));
    for (int64_t t = 0; t < 21; ++t) {
      std::vector<double> logits;
      double sum = 0;
      for (int64_t e = 0; e < experts; ++e) {
        double l = 0;
        for (int64_t d = 0; d < 50; ++d)
          l += x.data<double>()[t * 50 + d] * w.data<double>()[d * experts + e];
        logits.push_back(l);
        sum += std::exp(l);
      }
      double entropy = 0;
      for (int64_t e = 0; e < experts; ++e) {
        double p = std::exp(logits[static_cast<size_t>(e)]) / sum;
        entropy -= p * std::log(p);
        CHECK(f64.probabilities.data<double>()[t * experts + e] == Approx(p).epsilon(1e-12));
        CHECK(f32.probabilities.data<float>()[t * experts + e] == Approx(p).epsilon(1e-5));
      }
      CHECK(f64.log_sum_exp.data<double>()[t] == Approx(std::log(sum)).epsilon(1e-12));
      CHECK(f64.entropy.data<double>()[t] == Approx(entropy).margin(1e-12));
    }
  }
}

TEST_CASE("the gap rule: two experts iff R_1 - R_2 <= T", "[moe]") {
  GateScores scores = scores_with({{0.5f, 0.25f, 0.25f},     // gap 0.25, tie for the second
                                   {0.125f, 0.375f, 0.5f},   // gap 0.125
                                   {0.25f, 0.5f, 0.25f},     // gap 0.25
                                   {0.375f, 0.25f, 0.375f},  // gap 0
                                   {0.0f, 0.0f, 1.0f}});
  auto counts = [](const Selection& s) { return ints(s.row_start); };
  CHECK(counts(adaptive(scores, -1e-9)) == std::vector<int32_t>{0, 1, 2, 3, 4, 5});
  CHECK(counts(adaptive(scores, 0.0)) == std::vector<int32_t>{0, 1, 2, 3, 5, 6});
  CHECK(counts(adaptive(scores, 0.1249)) == std::vector<int32_t>{0, 1, 2, 3, 5, 6});
  CHECK(counts(adaptive(scores, 0.125)) == std::vector<int32_t>{0, 1, 3, 4, 6, 7});
  CHECK(counts(adaptive(scores, 0.25)) == std::vector<int32_t>{0, 2, 4, 6, 8, 9});
  CHECK(counts(adaptive(scores, 1.0)) == std::vector<int32_t>{0, 2, 4, 6, 8, 10});
  CHECK(ints(adaptive(scores, 1.0).expert) == std::vector<int32_t>{0, 1, 2, 1, 1, 0, 0, 2, 2, 0});
  // R_1 and R_2 scaled to sum to 1: gaps 1/3, 1/7, 1/3, 0, 1.
  CHECK(counts(adaptive(scores, 0.15, "pair")) == std::vector<int32_t>{0, 1, 3, 4, 6, 7});
  CHECK(counts(adaptive(scores, 0.34, "pair")) == std::vector<int32_t>{0, 2, 4, 6, 8, 9});
  // Up to three: expert r joins while R_1 - R_r <= T.
  CHECK(counts(adaptive(scores, 0.125, "all", 3)) == std::vector<int32_t>{0, 1, 3, 4, 7, 8});
}

TEST_CASE("T < 0 is top-1 and T >= 1 top-2, bit for bit", "[moe]") {
  for (int64_t experts : {1, 2, 8})
    for (std::string normalize : {"all", "pair"}) {
      GateScores scores = random_scores(999, experts);
      CHECK(
          same(adaptive(scores, -1e-6, normalize), choose(*make_top1_policy({}, experts), scores)));
      CHECK(same(adaptive(scores, 1.0, normalize), choose(*make_top2_policy({}, experts), scores)));
    }
  GateScores certain = scores_with({{1.0f, 0.0f, 0.0f}, {0.0f, 0.0f, 1.0f}});
  CHECK(same(adaptive(certain, 1.0), choose(*make_top2_policy({}, 3), certain)));
}

TEST_CASE("the random policy keeps its share and its addresses", "[moe]") {
  GateConfig config = config_of("random_one_or_two");
  auto policy = make_random_one_or_two_policy(config, 8);
  GateScores scores = random_scores(20000, 8);
  Selection s = choose(*policy, scores);
  double share = static_cast<double>(s.expert.numel()) / 20000 - 1;
  CHECK(share == Approx(0.4).margin(0.015));
  CHECK(!same(s, choose(*policy, scores, {}, {}, /*seed=*/8)));
  config.two_expert_share = 0;
  CHECK(choose(*make_random_one_or_two_policy(config, 8), scores).expert.numel() == 20000);
  config.two_expert_share = 1;
  CHECK(choose(*make_random_one_or_two_policy(config, 8), scores).expert.numel() == 40000);
}

TEST_CASE("the random policy draws anew in every layer, step, seed and row", "[moe]") {
  std::vector<Draw> draws = {
      {},          {.layer = 1}, {.layer = 2},        {.seed = 8},
      {.step = 1}, {.step = 2},  {.first_row = 2000}, {.layer = 1, .step = 1}};
  std::vector<std::vector<bool>> second;
  for (size_t i = 0; i < draws.size(); ++i) {
    second.push_back(second_experts(draws[i]));
    CHECK(share_of(second[i]) == Approx(0.5).margin(share_margin(0.5, second[i].size())));
    for (size_t j = 0; j < i; ++j) {
      INFO("draws " << j << " and " << i);
      CHECK(independent(second[j], second[i]));
    }
  }
  // A row's draw is that of its address, its place where it has none.
  std::vector<bool> later(second[0].begin() + 500, second[0].end());
  CHECK(second_experts({.first_row = 500}, 1500) == later);
  CHECK(second_experts({.first_row = -1}) == second[0]);
}

TEST_CASE("wrong gate settings are refused with the numbers", "[moe]") {
  GateConfig config = config_of("topk");
  CHECK_THROWS_WITH(make_gating_policy(config, 2), Catch::Contains("moe.gate.k is 3"));
  config.policy = "top-2";
  CHECK_THROWS_WITH(make_gating_policy(config, 2), Catch::Contains("adaptive"));
  GateConfig wrong;
  wrong.normalize = "pairs";
  CHECK_THROWS_WITH(make_gating_policy(wrong, 2), Catch::Contains("moe.gate.normalize is 'pairs'"));
  wrong = {};
  wrong.k_max = 0;
  CHECK_THROWS_WITH(make_gating_policy(wrong, 2), Catch::Contains("moe.gate.k_max is 0"));
  wrong = {};
  wrong.combine = "renormalised";
  CHECK_THROWS_WITH(Gate(4, 2, 0, wrong, 0.1),
                    Catch::Contains("moe.gate.combine is 'renormalised'"));
  CHECK_THROWS_WITH(RoutingStep(1, 2, {.loss = "papers"}),
                    Catch::Contains("moe.balance.loss is 'papers'"));
  CHECK_THROWS_WITH(RoutingStep(1, 2, {.loss = "paper", .scope = "batch"}),
                    Catch::Contains("moe.balance.scope is 'batch'"));
}

TEST_CASE("balance loss auto: what fits the policy; an explicit word stays", "[moe]") {
  auto resolved = [](int64_t experts, const GateConfig& gate, const std::string& loss) {
    MoeConfig moe;
    moe.experts = experts;
    moe.gate = gate;
    moe.balance.loss = loss;
    moe.balance.coefficient = 0.25;
    CHECK(moe.resolved_balance().coefficient == 0.25);
    return moe.resolved_balance().loss;
  };
  struct Case {
    GateConfig gate;
    const char* loss;
  };
  for (const auto& [gate, loss] : {
           Case{{}, "paper"},
           Case{{.threshold = -0.5}, "paper"},
           Case{{.threshold = 1}, "switch"},
           Case{{.threshold = 1, .k_max = 1}, "paper"},
           Case{{.policy = "top1"}, "paper"},
           Case{{.policy = "top2"}, "switch"},
           Case{{.policy = "topk", .k = 1}, "paper"},
           Case{{.policy = "topk", .k = 2}, "switch"},
           Case{{.policy = "random_one_or_two"}, "paper"},
           Case{{.policy = "random_one_or_two", .two_expert_share = 1}, "switch"},
       }) {
    CAPTURE(gate.policy, gate.threshold, gate.k);
    CHECK(resolved(4, gate, "auto") == loss);
    for (const char* word : {"paper", "switch", "none"}) CHECK(resolved(4, gate, word) == word);
  }
  CHECK(MoeConfig{}.balance.loss == "auto");
  // One expert has all the load.
  CHECK(resolved(1, {.policy = "top1"}, "auto") == "none");
  CHECK_THROWS_WITH(RoutingStep(1, 2, {.loss = "auto"}),
                    Catch::Contains("moe.balance.loss is 'auto'"));
}

}  // namespace adagate::test
