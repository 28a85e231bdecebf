// Attention of a sequence to itself and to another one.
#pragma once

#include "core/ops/attention.h"
#include "tests/support/op_cases_rows.h"

namespace adagate::test {

struct AttentionVariant {
  const char* name;
  AttentionShape shape;  // batch and head counts; the sequence comes from the size
  double dropout = 0;
  bool lengths = false;
};

inline std::vector<AttentionVariant> attention_variants() {
  return {
      {"causal", {.batch = 2, .heads = 2, .kv_heads = 2, .head_dim = 4}},
      {"both ways, lengths",
       {.batch = 3, .heads = 1, .kv_heads = 1, .head_dim = 5, .causal = false},
       0,
       true},
      {"causal, grouped, rotary, lengths, dropout",
       {.batch = 2, .heads = 4, .kv_heads = 2, .head_dim = 6, .rotary_base = 100.0},
       0.3,
       true},
      {"both ways, one key head, own scale, dropout",
       {.batch = 1, .heads = 3, .kv_heads = 1, .head_dim = 16, .causal = false, .scale = 0.5},
       0.2},
      // Whole vectors and a rest of a head's dimensions.
      {"causal, wide heads", {.batch = 1, .heads = 1, .kv_heads = 1, .head_dim = 64}},
      {"causal, grouped, wide heads, dropout",
       {.batch = 1, .heads = 2, .kv_heads = 1, .head_dim = 40},
       0.1},
  };
}

// Lengths from none to all.
inline Tensor attention_lengths(int64_t batch, int64_t sequence, Device device = {}) {
  Tensor lengths = Tensor::empty({batch}, DType::i32);
  for (int64_t i = 0; i < batch; ++i)
    lengths.data<int32_t>()[i] =
        static_cast<int32_t>(i * sequence / std::max<int64_t>(1, batch - 1));
  return lengths.to(device);
}

inline std::vector<OpCase> attention_cases() {
  std::vector<OpCase> cases;
  for (const AttentionVariant& v : attention_variants()) {
    cases.push_back(
        {.name = std::string("attention ") + v.name,
         .inputs =
             [v](int64_t n) {
               const AttentionShape& s = v.shape;
               return std::vector<OpInput>{
                   {random_normal({s.batch * n, (s.heads + 2 * s.kv_heads) * s.head_dim}, 1)}};
             },
         .function =
             [v](std::span<const Tensor> in) {
               AttentionShape s = v.shape;
               s.sequence = in[0].rows() / s.batch;
               Tensor lengths =
                   v.lengths ? attention_lengths(s.batch, s.sequence, in[0].device()) : Tensor();
               return std::vector{attention(in[0], s, lengths, dropout_site(v.dropout),
                                            token_addresses(in[0].rows(), in[0].device()))};
             },
         .tolerance = {.f32 = 5e-6}});
  }
  return cases;
}

// Queries of one sequence, keys and values of another.
struct CrossVariant {
  const char* name;
  AttentionShape shape;  // batch and head counts
  double dropout = 0;
  bool lengths = false;  // from none to all, of queries and keys apart
  bool packed = false;   // keys and values side by side in one tensor
  int64_t earlier = 0;   // queries begin at positions from none to all of these
  double keys_per_query = 0.5;
  int64_t more_keys = 3;  // at least two for every query: one alone passes it no gradient

  int64_t keys(int64_t queries) const {
    return static_cast<int64_t>(keys_per_query * static_cast<double>(queries)) + more_keys;
  }
};

inline std::vector<CrossVariant> cross_variants() {
  return {{.name = "both ways, grouped, own lengths",
           .shape = {.batch = 4, .heads = 4, .kv_heads = 2, .head_dim = 6, .causal = false},
           .lengths = true},
          {.name = "both ways, packed keys and values, dropout",
           .shape = {.batch = 2, .heads = 2, .kv_heads = 2, .head_dim = 5, .causal = false},
           .dropout = 0.3,
           .packed = true},
          {.name = "both ways, more keys than queries",
           .shape = {.batch = 1, .heads = 2, .kv_heads = 1, .head_dim = 16, .causal = false},
           .keys_per_query = 2,
           .more_keys = 0},
          {.name = "causal, behind earlier keys, rotary",
           .shape = {.batch = 3, .heads = 2, .kv_heads = 1, .head_dim = 8, .rotary_base = 100.0},
           .earlier = 7,
           .keys_per_query = 1,
           .more_keys = 7},
          {.name = "causal, own lengths, own starts, dropout",
           .shape = {.batch = 4, .heads = 1, .kv_heads = 1, .head_dim = 4},
           .dropout = 0.2,
           .lengths = true,
           .earlier = 3,
           .more_keys = 4}};
}

inline AttentionRows cross_rows(const CrossVariant& v, int64_t queries, Device device = {}) {
  const auto n = static_cast<int32_t>(queries), m = static_cast<int32_t>(v.keys(queries));
  AttentionRows rows;
  auto tensor = [&](const std::vector<int32_t>& values) {
    return Tensor::from(std::span<const int32_t>(values), {v.shape.batch}, device);
  };
  if (v.lengths) {
    rows.queries = tensor({0, n, n / 2, n});
    rows.keys = tensor({m, m / 2, m, 0});
  }
  if (v.earlier > 0) {
    std::vector<int32_t> starts;
    for (int64_t b = 0; b < v.shape.batch; ++b)
      starts.push_back(static_cast<int32_t>(v.earlier * b / (v.shape.batch - 1)));
    rows.starts = tensor(starts);
  }
  return rows;
}

// q and k, v; or q and both in one.
inline std::vector<OpInput> cross_inputs(const CrossVariant& v, int64_t queries) {
  const AttentionShape& s = v.shape;
  const int64_t rows = s.batch * v.keys(queries), cols = s.kv_heads * s.head_dim;
  std::vector<OpInput> inputs{{random_normal({s.batch * queries, s.heads * s.head_dim}, 1)}};
  if (v.packed) {
    inputs.push_back({random_normal({rows, 2 * cols}, 2)});
  } else {
    inputs.push_back({random_normal({rows, cols}, 2)});
    inputs.push_back({random_normal({rows, cols}, 3)});
  }
  return inputs;
}

inline Tensor cross_attention(const CrossVariant& v, std::span<const Tensor> in) {
  AttentionShape s = v.shape;
  s.sequence = in[0].rows() / s.batch;
  const HeadColumns k{in[1], 0};
  const HeadColumns values =
      v.packed ? HeadColumns{in[1], s.kv_heads * s.head_dim} : HeadColumns{in[2], 0};
  const Device device = in[0].device();
  return attention({in[0], 0}, k, values, s, cross_rows(v, s.sequence, device),
                   dropout_site(v.dropout), token_addresses(in[0].rows(), device));
}

// Columns of one tensor, in another order and with some between them that nobody reads.
inline Tensor attention_of_columns(const Tensor& x) {
  const AttentionShape shape{
      .batch = 2, .sequence = x.rows() / 2, .heads = 2, .kv_heads = 1, .head_dim = 4};
  return attention({x, 13}, {x, 9}, {x, 2}, shape, {}, {}, {});
}

inline std::vector<OpCase> cross_attention_cases() {
  std::vector<OpCase> cases;
  for (const CrossVariant& v : cross_variants()) {
    cases.push_back(
        {.name = std::string("cross-attention ") + v.name,
         .inputs = [v](int64_t n) { return cross_inputs(v, n); },
         .function =
             [v](std::span<const Tensor> in) { return std::vector{cross_attention(v, in)}; },
         .tolerance = {.f32 = 5e-6}});
  }
  cases.push_back(
      {.name = "attention of columns with gaps",
       .inputs =
           [](int64_t n) {
             return std::vector<OpInput>{{random_normal({2 * n, 22}, 1)}};
           },
       .function =
           [](std::span<const Tensor> in) { return std::vector{attention_of_columns(in[0])}; },
       .tolerance = {.f32 = 5e-6}});
  return cases;
}

}  // namespace adagate::test
