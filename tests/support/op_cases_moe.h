// Ops of Mixture-of-Experts layers, with choices drawn at random: 0 to 3 of 5 experts (or more)
// per token.
#pragma once

#include "core/ops/permute.h"
#include "core/ops/routing.h"
#include "tests/support/op_case.h"

namespace adagate::test {

inline constexpr int64_t kCaseExperts = 5;

// row_start [n + 1] and expert [assignments].
inline Selection random_selection(int64_t tokens, int64_t experts = kCaseExperts,
                                  int32_t most = 3) {
  Tensor count = random_integers({tokens}, 31, 0, most + 1);
  Tensor first = random_integers({tokens}, 32, 0, static_cast<int32_t>(experts));
  std::vector<int32_t> start{0}, expert;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int32_t i = 0; i < count.data<int32_t>()[t]; ++i)
      expert.push_back(static_cast<int32_t>((first.data<int32_t>()[t] + 2 * i) % experts));
    start.push_back(static_cast<int32_t>(expert.size()));
  }
  return make_selection(start, expert, experts);
}

inline Selection selection_of(const Tensor& row_start, const Tensor& expert,
                              int64_t experts = kCaseExperts) {
  return make_selection(row_start.to_host<int32_t>(), expert.to_host<int32_t>(), experts,
                        expert.device());
}

inline int64_t assignments_of(int64_t tokens) {
  return random_selection(tokens).expert.numel();
}

inline std::vector<OpCase> moe_cases() {
  std::vector<OpCase> cases;
  struct Weights {
    const char* name;
    bool renormalize;
    int64_t experts;
  };
  for (Weights w : {Weights{"routing_weights raw", false, kCaseExperts},
                    {"routing_weights renormalized", true, kCaseExperts},
                    {"routing_weights raw, many experts", false, 20},
                    {"routing_weights renormalized, many experts", true, 17}}) {
    cases.push_back({.name = w.name,
                     .inputs =
                         [w](int64_t n) {
                           Selection s = random_selection(n, w.experts);
                           return std::vector<OpInput>{
                               {random_normal({n, 33}, 1)},
                               {random_normal({33, w.experts}, 2, 0.3), Role::precise},
                               {s.row_start, Role::constant},
                               {s.expert, Role::constant}};
                         },
                     .function =
                         [w](std::span<const Tensor> in) {
                           GateScores scores = gate_scores(in[0], in[1]);
                           return std::vector{routing_weights(in[0], in[1], scores,
                                                              selection_of(in[2], in[3], w.experts),
                                                              w.renormalize, {}, nullptr)};
                         }});
  }
  cases.push_back({.name = "gather_rows",
                   .inputs =
                       [](int64_t n) {
                         Selection s = random_selection(n);
                         return std::vector<OpInput>{{random_normal({n, 67}, 1)},
                                                     {s.row_start, Role::constant},
                                                     {s.expert, Role::constant}};
                       },
                   .function =
                       [](std::span<const Tensor> in) {
                         return std::vector{
                             gather_rows(in[0], sort_by_expert(selection_of(in[1], in[2])))};
                       }});
  cases.push_back({.name = "combine_rows",
                   .inputs =
                       [](int64_t n) {
                         Selection s = random_selection(n);
                         return std::vector<OpInput>{
                             {random_normal({assignments_of(n), 300}, 1)},
                             {random_normal({assignments_of(n)}, 2), Role::precise},
                             {s.row_start, Role::constant},
                             {s.expert, Role::constant}};
                       },
                   .function =
                       [](std::span<const Tensor> in) {
                         return std::vector{combine_rows(
                             in[0], in[1], sort_by_expert(selection_of(in[2], in[3])))};
                       }});
  cases.push_back({.name = "permute_rows",
                   .inputs =
                       [](int64_t n) {
                         Tensor from = Tensor::empty({n}, DType::i32), to = empty_like(from);
                         for (int64_t i = 0; i < n; ++i) {
                           auto j = static_cast<int32_t>((i + n / 3) % n);  // a rotation
                           from.data<int32_t>()[i] = j;
                           to.data<int32_t>()[j] = static_cast<int32_t>(i);
                         }
                         return std::vector<OpInput>{{random_normal({n, 19}, 1)},
                                                     {from, Role::constant},
                                                     {to, Role::constant}};
                       },
                   .function =
                       [](std::span<const Tensor> in) {
                         return std::vector{permute_rows(in[0], in[1], in[2])};
                       }});
  return cases;
}

}  // namespace adagate::test
