// Ops that work on rows: norms, embedding, dropout, elementwise.
#pragma once

#include "core/ops/dropout.h"
#include "core/ops/elementwise.h"
#include "core/ops/embedding.h"
#include "core/ops/norm.h"
#include "tests/support/op_case.h"

namespace adagate::test {

// Addresses that are neither dense nor small.
inline Tensor token_addresses(int64_t n, Device device = {}) {
  Tensor ids = Tensor::empty({n}, DType::i64);
  for (int64_t i = 0; i < n; ++i) ids.data<int64_t>()[i] = (int64_t{1} << 33) + 5 * i;
  return ids.to(device);
}

inline DropoutSite dropout_site(double probability) {
  return {Rng(3, RngStream::dropout, 5, 1), probability};
}

// Columns that are no multiple of a vector, and more than the 64 that are summed at a time.
inline constexpr int64_t kCaseColumns = 131;

inline std::vector<OpCase> norm_cases() {
  auto inputs = [](int64_t n) {
    return std::vector<OpInput>{{random_normal({n, kCaseColumns}, 1)},
                                {random_normal({kCaseColumns}, 2), Role::precise},
                                {random_normal({kCaseColumns}, 3), Role::precise}};
  };
  std::vector<OpCase> cases;
  cases.push_back(
      {.name = "layer_norm", .inputs = inputs, .function = [](std::span<const Tensor> in) {
         return std::vector{layer_norm(in[0], in[1], in[2], 1e-5)};
       }});
  cases.push_back(
      {.name = "rms_norm",
       .inputs =
           [inputs](int64_t n) {
             auto all = inputs(n);
             all.pop_back();
             return all;
           },
       .function =
           [](std::span<const Tensor> in) { return std::vector{rms_norm(in[0], in[1], 1e-5)}; }});
  return cases;
}

inline std::vector<OpCase> row_cases() {
  std::vector<OpCase> cases;
  cases.push_back({.name = "embedding with positions",
                   .inputs =
                       [](int64_t n) {
                         return std::vector<OpInput>{
                             {random_integers({n}, 1, 0, 11), Role::constant},
                             {random_integers({n}, 2, 0, 7), Role::constant},
                             {random_normal({11, 70}, 3), Role::parameter},
                             {random_normal({7, 70}, 4), Role::parameter}};
                       },
                   .function =
                       [](std::span<const Tensor> in) {
                         return std::vector{embedding(in[0], in[2], in[1], in[3])};
                       }});
  for (double p : {0.0, 0.3}) {
    cases.push_back(
        {.name = p > 0 ? "bias_dropout_add" : "bias_dropout_add without dropout",
         .inputs =
             [](int64_t n) {
               return std::vector<OpInput>{{random_normal({n, kCaseColumns}, 1)},
                                           {random_normal({kCaseColumns}, 2), Role::parameter},
                                           {random_normal({n, kCaseColumns}, 3)}};
             },
         .function =
             [p](std::span<const Tensor> in) {
               return std::vector{bias_dropout_add(in[0], in[1], in[2], dropout_site(p),
                                                   token_addresses(in[0].rows(), in[0].device()))};
             }});
  }
  auto two = [](int64_t n) {
    return std::vector<OpInput>{{random_normal({n, 3}, 1)}, {random_normal({n, 3}, 2)}};
  };
  cases.push_back({.name = "dropout, add, mul, scale",
                   .inputs = two,
                   .function = [](std::span<const Tensor> in) {
                     Tensor d = dropout(in[0], dropout_site(0.5),
                                        token_addresses(in[0].rows(), in[0].device()));
                     return std::vector{scale(add(d, in[1]), -0.5), mul(in[0], in[1])};
                   }});
  cases.push_back({.name = "sum", .inputs = two, .function = [](std::span<const Tensor> in) {
                     return std::vector{sum(mul(in[0], in[1]))};
                   }});
  return cases;
}

}  // namespace adagate::test
