// Inputs shared by the MoE tests.
#pragma once

#include <cstring>
#include <vector>

#include "core/ops/routing.h"
#include "moe/gating_policy.h"
#include "tests/support/op_cases_moe.h"

namespace adagate::test {

// Scores of random tokens; probabilities spread so that every policy decides both ways.
inline GateScores random_scores(int64_t tokens, int64_t experts, uint64_t salt = 1,
                                DType type = DType::f32) {
  Tensor x = random_normal({tokens, 24}, salt).to(type);
  Tensor w = random_normal({24, experts}, salt + 100, 0.25).to(type);
  return gate_scores(x, w);
}

inline Tensor mask_of(const std::vector<int>& real) {
  Tensor mask = Tensor::empty({static_cast<int64_t>(real.size())}, DType::u8);
  for (size_t i = 0; i < real.size(); ++i) mask.data<uint8_t>()[i] = static_cast<uint8_t>(real[i]);
  return mask;
}

// Every third token is padding.
inline Tensor padded_mask(int64_t tokens) {
  std::vector<int> real(static_cast<size_t>(tokens), 1);
  for (size_t t = 2; t < real.size(); t += 3) real[t] = 0;
  return mask_of(real);
}

inline std::vector<int32_t> ints(const Tensor& x) {
  const int32_t* p = x.data<int32_t>();
  return {p, p + x.numel()};
}

inline RoutingSums sums_of(const GateScores& scores, const Selection& selection,
                           const Tensor& mask = {}, bool pair_normalized = false) {
  return unpack_routing_sums(
      routing_sums(scores, selection, mask, pair_normalized).to_host<double>(),
      scores.probabilities.dim(1));
}

// The experts of one token.
inline std::vector<int32_t> experts_of(const Selection& s, int64_t token) {
  const int32_t* start = s.row_start.data<int32_t>() + token;
  const int32_t* expert = s.expert.data<int32_t>();
  return {expert + start[0], expert + start[1]};
}

inline bool same(const Selection& a, const Selection& b) {
  return ints(a.row_start) == ints(b.row_start) && ints(a.expert) == ints(b.expert);
}

inline bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() &&
         std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

}  // namespace adagate::test
