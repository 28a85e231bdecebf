// Ops made of matrix products: linear, experts, the loss; and the activations between them.
#pragma once

#include "core/ops/bias_activation.h"
#include "core/ops/grouped_linear.h"
#include "core/ops/linear.h"
#include "core/ops/linear_cross_entropy.h"
#include "tests/support/op_case.h"
#include "tests/support/targets_for.h"

namespace adagate::test {

inline void add_linear_cases(std::vector<OpCase>& cases) {
  cases.push_back(
      {.name = "linear",
       .inputs =
           [](int64_t n) {
             return std::vector<OpInput>{{random_normal({n, 9}, 1)},
                                         {random_normal({9, 131}, 2, 0.3), Role::parameter},
                                         {random_normal({131}, 3), Role::parameter}};
           },
       .function =
           [](std::span<const Tensor> in) { return std::vector{linear(in[0], in[1], in[2])}; }});
  cases.push_back(
      {.name = "linear without bias, many columns",
       .inputs =
           [](int64_t n) {
             return std::vector<OpInput>{{random_normal({2, 3, n}, 1)},
                                         {random_normal({n, 5}, 2, 0.1), Role::parameter}};
           },
       .function = [](std::span<const Tensor> in) { return std::vector{linear(in[0], in[1])}; }});
  cases.push_back(
      {.name = "linear with a full-precision weight",
       .inputs =
           [](int64_t n) {
             return std::vector<OpInput>{{random_normal({n, 24}, 1)},
                                         {random_normal({24, 8}, 2, 0.2), Role::precise}};
           },
       .function = [](std::span<const Tensor> in) { return std::vector{linear(in[0], in[1])}; }});
}

inline void add_activation_cases(std::vector<OpCase>& cases) {
  for (Activation a : {Activation::identity, Activation::gelu, Activation::gelu_erf,
                       Activation::relu, Activation::silu, Activation::swiglu}) {
    cases.push_back({.name = "bias_activation " + std::string(name_of(a)),
                     .inputs =
                         [](int64_t n) {
                           return std::vector<OpInput>{{random_normal({n, 22}, 1, 2.0)},
                                                       {random_normal({22}, 2), Role::parameter}};
                         },
                     .function =
                         [a](std::span<const Tensor> in) {
                           return std::vector{bias_activation(in[0], in[1], a)};
                         }});
    cases.push_back({.name = "bias_activation by group " + std::string(name_of(a)),
                     .inputs =
                         [](int64_t n) {
                           return std::vector<OpInput>{
                               {random_normal({n, 300}, 1, 2.0)},
                               {random_normal({4, 300}, 2), Role::parameter}};
                         },
                     .function =
                         [a](std::span<const Tensor> in) {
                           int64_t n = in[0].rows();
                           GroupOffsets offsets({0, n / 3, n / 3, n - n / 4, n}, in[0].device());
                           return std::vector{bias_activation(in[0], in[1], offsets, a)};
                         }});
  }
  cases.push_back({.name = "bias_activation without bias",
                   .inputs =
                       [](int64_t n) {
                         return std::vector<OpInput>{{random_normal({n, 2, 6}, 1)}};
                       },
                   .function =
                       [](std::span<const Tensor> in) {
                         return std::vector{bias_activation(in[0], {}, Activation::swiglu)};
                       }});
}

inline void add_expert_and_loss_cases(std::vector<OpCase>& cases) {
  for (bool with_bias : {false, true}) {
    cases.push_back({
        .name = with_bias ? "grouped_linear with bias" : "grouped_linear",
        .inputs =
            [with_bias](int64_t n) {
              std::vector<OpInput> in{{random_normal({n, 130}, 1)},
                                      {random_normal({5, 130, 20}, 2, 0.1), Role::parameter}};
              if (with_bias) in.push_back({random_normal({5, 20}, 3), Role::parameter});
              return in;
            },
        .function =
            [with_bias](std::span<const Tensor> in) {
              int64_t n = in[0].rows();
              GroupOffsets offsets({0, n / 8, n / 8, n / 8 + n / 2, n, n}, in[0].device());
              Tensor y = grouped_linear(in[0], in[1], offsets, with_bias ? in[2] : Tensor());
              return std::vector{y};
            },
    });
  }
  cases.push_back(
      {.name = "linear_cross_entropy",
       .inputs =
           [](int64_t n) {
             return std::vector<OpInput>{{random_normal({n, 12}, 1)},
                                         {random_normal({53, 12}, 2), Role::parameter},
                                         {random_integers({n}, 3, -1, 53), Role::constant}};
           },
       .function =
           [](std::span<const Tensor> in) {
             auto result = linear_cross_entropy(in[0], in[1], targets_for(in[1], in[2]), 0.37);
             return std::vector{result.loss};
           }});
  cases.push_back(
      {.name = "linear_cross_entropy with bias and smoothing",
       .inputs =
           [](int64_t n) {
             return std::vector<OpInput>{{random_normal({n, 12}, 1)},
                                         {random_normal({53, 12}, 2), Role::parameter},
                                         {random_normal({53}, 4), Role::parameter},
                                         {random_integers({n}, 3, -1, 53), Role::constant}};
           },
       .function =
           [](std::span<const Tensor> in) {
             LossTargets targets = targets_for(in[1], in[3]);
             return std::vector{linear_cross_entropy(in[0], in[1], targets, 0.37, 0.1, in[2]).loss};
           }});
  for (double smoothing : {0.0, 0.2}) {
    cases.push_back({.name = fmt::format("cross_entropy, smoothing {}", smoothing),
                     .inputs =
                         [](int64_t n) {
                           return std::vector<OpInput>{
                               {random_normal({n, 7}, 1)},
                               {random_integers({n}, 3, -1, 7), Role::constant}};
                         },
                     .function =
                         [smoothing](std::span<const Tensor> in) {
                           LossTargets targets =
                               loss_targets(in[1].to_host<int32_t>(), in[0].cols(), in[0].device());
                           return std::vector{cross_entropy(in[0], targets, 0.37, smoothing).loss};
                         }});
  }
}

inline std::vector<OpCase> product_cases() {
  std::vector<OpCase> cases;
  add_linear_cases(cases);
  add_activation_cases(cases);
  add_expert_and_loss_cases(cases);
  return cases;
}

}  // namespace adagate::test
