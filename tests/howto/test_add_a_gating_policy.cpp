// The policy of docs/howto/add_a_gating_policy.md.
#include "moe/top_p_policy.h"
#include "tests/support/catch.h"

using namespace adagate;

namespace {

GateScores scores_of(const std::vector<float>& probabilities, int64_t experts) {
  auto tokens = static_cast<int64_t>(probabilities.size()) / experts;
  return {Tensor::from(probabilities, {tokens, experts}), Tensor::zeros({tokens}, DType::f32),
          Tensor::zeros({tokens}, DType::f32)};
}

std::vector<int32_t> ints(const Tensor& x) {
  return {x.data<int32_t>(), x.data<int32_t>() + x.numel()};
}

GateConfig share_of(double share) {
  GateConfig config;
  config.threshold = share;
  return config;
}

}  // namespace

// [entry]
constexpr GatingPolicyEntry kTopPEntry = {
    .name = "top_p",
    .help = "the fewest experts whose probabilities sum to the threshold",
    .make = make_top_p_policy,
    .takes = top_p_takes,
    .plan_note = "more where the gate hesitates"};
// [end]

// [test]
TEST_CASE("top_p: the fewest experts that gather the share") {
  GateScores scores = scores_of({0.5f, 0.25f, 0.25f,      // the lower index wins the tie
                                 0.125f, 0.125f, 0.75f},  // one expert has the share alone
                                3);
  auto policy = make_top_p_policy(share_of(0.75), 3);
  Selection s = policy->choose({.scores = scores, .mask = {}, .addresses = {}});
  CHECK(ints(s.row_start) == std::vector<int32_t>{0, 2, 3});
  CHECK(ints(s.expert) == std::vector<int32_t>{0, 1, 2});
}
// [end]

TEST_CASE("top_p: all experts, padding, no tokens, wrong shares") {
  GateScores scores = scores_of({0.5f, 0.25f, 0.25f, 0.125f, 0.125f, 0.75f}, 3);
  auto all = kTopPEntry.make(share_of(1.0), 3);
  CHECK(all->k_max() == 3);
  CHECK(kTopPEntry.takes(share_of(1.0), 3).most == 3);
  CHECK(ints(all->choose({.scores = scores, .mask = {}, .addresses = {}}).expert) ==
        std::vector<int32_t>{0, 1, 2, 2, 0, 1});
  Tensor mask = Tensor::zeros({2}, DType::u8);
  mask.data<uint8_t>()[1] = 1;
  Selection padded = all->choose({.scores = scores, .mask = mask, .addresses = {}});
  CHECK(ints(padded.row_start) == std::vector<int32_t>{0, 0, 3});
  GateScores none = {Tensor::empty({0, 3}, DType::f32), Tensor::empty({0}, DType::f32),
                     Tensor::empty({0}, DType::f32)};
  CHECK(all->choose({.scores = none, .mask = {}, .addresses = {}}).expert.numel() == 0);
  CHECK_THROWS_WITH(make_top_p_policy(share_of(0), 3), Catch::Contains("needs a share above 0"));
}
