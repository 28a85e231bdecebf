// Ops made of matrix products: linear, experts, the loss; and the activations between them.
#pragma once

#include "core/ops/linear.h"
#include "tests/support/op_case.h"

namespace adagate::test {

inline std::vector<OpCase> product_cases() {
  std::vector<OpCase> cases;
  cases.push_back(
      {.name = "linear",
       .inputs =
           [](int64_t n) {
             return std::vector<OpInput>{{random_normal({n, 9}, 1)},
                                         {random_normal({9, 17}, 2, 0.3), Role::parameter},
                                         {random_normal({17}, 3), Role::parameter}};
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
  return cases;
}

}  // namespace adagate::test
