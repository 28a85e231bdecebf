// Attention of one sequence to another against the textbook formula: own lengths on both sides,
// starting positions, and views into tensors of any width.
#include <cmath>
#include <cstring>
#include <utility>

#include "core/base/threads.h"
#include "core/ops/attention.h"
#include "tests/support/attention_reference.h"
#include "tests/support/gradient_check.h"
#include "tests/support/op_cases_attention.h"
#include "tests/support/tested_tiles.h"

using namespace adagate;
using namespace adagate::test;
using Catch::Matchers::Contains;

namespace {

std::vector<Tensor> values_of(const std::vector<OpInput>& inputs, DType type) {
  std::vector<Tensor> values;
  for (const OpInput& input : inputs) values.push_back(input.values.to(type));
  return values;
}

Tensor reference(const CrossVariant& v, int64_t queries) {
  const std::vector<Tensor> in = values_of(cross_inputs(v, queries), DType::f64);
  AttentionProblem p{v.shape,
                     {in[0], 0},
                     {in[1], 0},
                     {in[1], v.shape.kv_heads * v.shape.head_dim},
                     cross_rows(v, queries),
                     dropout_site(v.dropout),
                     token_addresses(in[0].rows())};
  if (!v.packed) p.v = {in[2], 0};
  p.shape.sequence = queries;
  return plain_attention(p);
}

Evaluation run(const CrossVariant& v, int64_t queries, DType type) {
  return evaluate(
      cross_inputs(v, queries),
      [&](std::span<const Tensor> in) { return std::vector{cross_attention(v, in)}; }, type);
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && a.numel() == b.numel() &&
         std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

// Some columns as a tensor of their own.
Tensor columns(const Tensor& x, int64_t begin, int64_t end) {
  Tensor y = Tensor::empty({x.rows(), end - begin}, x.dtype());
  for (int64_t r = 0; r < x.rows(); ++r)
    std::memcpy(
        static_cast<std::byte*>(y.raw()) + static_cast<size_t>(r * y.cols()) * size_of(x.dtype()),
        static_cast<const std::byte*>(x.raw()) +
            static_cast<size_t>(r * x.cols() + begin) * size_of(x.dtype()),
        static_cast<size_t>(y.cols()) * size_of(x.dtype()));
  return y;
}

}  // namespace

TEST_CASE("cross-attention follows the formula across block borders") {
  for (const CrossVariant& v : cross_variants()) {
    for (int64_t queries : {1, 2, 15, 64, 130, 203}) {
      INFO(v.name << ", " << queries << " queries");
      Tensor expected = reference(v, queries);
      CHECK(relative_error(run(v, queries, DType::f64).outputs[0], expected) < 1e-12);
      CHECK(relative_error(run(v, queries, DType::f32).outputs[0], expected) < 1e-5);
      for (MatrixTiles tiles : tested_tiles()) {
        INFO(name_of(tiles));
        UseTiles use(tiles);
        CHECK(relative_error(run(v, queries, DType::bf16).outputs[0], expected) < 3e-2);
      }
    }
  }
}

TEST_CASE("cross-attention's gradients are right across block borders") {
  for (const CrossVariant& v : cross_variants()) {
    for (int64_t queries : {67, 150}) {
      INFO(v.name << ", " << queries << " queries");
      check_gradients(cross_inputs(v, queries), [&](std::span<const Tensor> in) {
        return std::vector{cross_attention(v, in)};
      });
      const Evaluation exact = run(v, queries, DType::f64), single = run(v, queries, DType::f32);
      auto errors_below = [&](const Evaluation& got, double bound) {
        for (size_t i = 0; i < exact.gradients.size(); ++i) {
          INFO("input " << i);
          CHECK(relative_error(got.gradients[i], exact.gradients[i]) < bound);
        }
      };
      errors_below(single, 1e-5);
      for (MatrixTiles tiles : tested_tiles()) {
        INFO(name_of(tiles));
        UseTiles use(tiles);
        errors_below(run(v, queries, DType::bf16), 4e-2);
      }
    }
  }
}

TEST_CASE("cross-attention does not depend on the number of threads") {
  for (const CrossVariant& v : cross_variants()) {
    for (DType type : {DType::f32, DType::bf16}) {
      INFO(v.name << " " << name_of(type));
      auto with = [&](int threads) {
        const LibraryThreads team(threads);
        return run(v, 333, type);
      };
      const Evaluation one = with(1);
      for (int threads : {2, 8}) {
        const Evaluation got = with(threads);
        CHECK(same_bits(got.outputs[0], one.outputs[0]));
        for (size_t i = 0; i < one.gradients.size(); ++i)
          CHECK(same_bits(got.gradients[i], one.gradients[i]));
      }
    }
  }
}

TEST_CASE("attention to columns of one tensor is attention to tensors apart") {
  const AttentionShape s{
      .batch = 2, .sequence = 70, .heads = 4, .kv_heads = 2, .head_dim = 6, .rotary_base = 100.0};
  const Tensor packed = random_normal({140, 48}, 1);
  const std::vector<OpInput> apart{
      {columns(packed, 0, 24)}, {columns(packed, 24, 36)}, {columns(packed, 36, 48)}};
  const Tensor lengths = attention_lengths(2, 70);
  for (DType type : {DType::f64, DType::f32, DType::bf16}) {
    INFO(name_of(type));
    auto one = evaluate(
        {{packed}},
        [&](std::span<const Tensor> in) {
          return std::vector{attention(in[0], s, lengths, dropout_site(0.2), token_addresses(140))};
        },
        type);
    auto three = evaluate(
        apart,
        [&](std::span<const Tensor> in) {
          return std::vector{attention({in[0]}, {in[1]}, {in[2]}, s, {lengths, lengths, {}},
                                       dropout_site(0.2), token_addresses(140))};
        },
        type);
    CHECK(same_bits(one.outputs[0], three.outputs[0]));
    CHECK(same_bits(columns(one.gradients[0], 0, 24), three.gradients[0]));
    CHECK(same_bits(columns(one.gradients[0], 24, 36), three.gradients[1]));
    CHECK(same_bits(columns(one.gradients[0], 36, 48), three.gradients[2]));
  }
}

TEST_CASE("attention gives each of q, k and v its gradient, whoever else wants one") {
  const CrossVariant v = cross_variants()[0];
  for (int64_t queries : {40, 300}) {  // whole and, on several threads, in slices
    const Evaluation all = run(v, queries, DType::f64);
    for (size_t wanted = 0; wanted < 3; ++wanted) {
      INFO("input " << wanted << ", " << queries << " queries");
      std::vector<OpInput> inputs = cross_inputs(v, queries);
      for (size_t i = 0; i < 3; ++i)
        if (i != wanted) inputs[i].role = Role::constant;
      const Evaluation got = evaluate(
          inputs, [&](std::span<const Tensor> in) { return std::vector{cross_attention(v, in)}; },
          DType::f64);
      CHECK(same_bits(got.gradients[wanted], all.gradients[wanted]));
    }
  }
}

TEST_CASE("what no query sees gets no gradient, and who sees nothing gives zeros") {
  const CrossVariant v = cross_variants()[0];  // queries {0, n, n / 2, n}, keys {m, m / 2, m, 0}
  constexpr int64_t kQueries = 90;
  const int64_t keys = v.keys(kQueries);
  for (MatrixTiles tiles : tested_tiles()) {
    UseTiles use(tiles);
    for (DType type : {DType::f64, DType::f32, DType::bf16}) {
      INFO(name_of(tiles) << ", " << name_of(type));
      {
        Tensor poison = Tensor::empty({int64_t{1} << 21}, DType::u8);
        std::memset(poison.raw(), 0xff, poison.bytes());
      }
      const Evaluation got = run(v, kQueries, type);
      auto zero = [](const Tensor& x, int64_t begin, int64_t end) {
        for (double value : x.slice(begin, end).to_doubles())
          if (value != 0) return false;
        return true;
      };
      for (const Tensor& x : {got.outputs[0], got.gradients[0]}) {
        CHECK(zero(x, 0, kQueries));                                // no queries
        CHECK(zero(x, 2 * kQueries + kQueries / 2, 3 * kQueries));  // past them
        CHECK(zero(x, 3 * kQueries, 4 * kQueries));                 // no keys
        CHECK_FALSE(zero(x, kQueries, 2 * kQueries));
      }
      for (const Tensor& x : {got.gradients[1], got.gradients[2]}) {
        CHECK(zero(x, 0, keys));                    // no queries
        CHECK(zero(x, keys + keys / 2, 2 * keys));  // past the keys
        CHECK(zero(x, 3 * keys, 4 * keys));         // no keys
        CHECK_FALSE(zero(x, 2 * keys, 2 * keys + 1));
      }
    }
  }
}

TEST_CASE("columns that attention doesn't read get a gradient of zero, or keep what was there") {
  const std::vector<OpInput> inputs{{random_normal({80, 22}, 1)}};
  for (double before : {0.0, 3.0}) {
    {
      Tensor poison = Tensor::empty({80, 22}, DType::f64);
      std::memset(poison.raw(), 0xff, poison.bytes());
    }
    const Evaluation got = evaluate(
        inputs, [](std::span<const Tensor> in) { return std::vector{attention_of_columns(in[0])}; },
        DType::f64, before);
    for (auto [begin, end] : {std::pair<int64_t, int64_t>{0, 2}, {6, 9}, {21, 22}})
      for (double x : columns(got.gradients[0], begin, end).to_doubles()) CHECK(x == before);
  }
}

TEST_CASE("attention refuses views that don't fit") {
  AttentionShape s{.batch = 2, .sequence = 3, .heads = 2, .kv_heads = 1, .head_dim = 4};
  Tensor q = Tensor::zeros({6, 8}, DType::f32), k = Tensor::zeros({10, 4}, DType::f32);
  auto call = [&](const HeadColumns& a, const HeadColumns& b, const HeadColumns& c,
                  const AttentionRows& rows = {}) { return attention(a, b, c, s, rows, {}, {}); };
  CHECK(call({q}, {k}, {k}).shape() == Shape{6, 8});
  CHECK_THROWS_WITH(call({q, 1}, {k}, {k}), "attention: q takes the columns [1, 9) of [6, 8]");
  CHECK_THROWS_WITH(call({q}, {k, -1}, {k}), "attention: k takes the columns [-1, 3) of [10, 4]");
  CHECK_THROWS_WITH(call({q}, {k}, {k.to(DType::f64)}), "attention: v is f64, q is f32");
  CHECK_THROWS_WITH(call({q}, {k.slice(0, 9)}, {k}), "attention: k has 9 rows for 2 samples");
  CHECK_THROWS_WITH(call({q}, {k}, {k.slice(0, 8)}), "attention: k has 5 rows a sample, v has 4");
  CHECK_THROWS_WITH(call({k}, {k}, {k}), Contains("q takes the columns [0, 8) of [10, 4]"));
  CHECK_THROWS_WITH(call({q.slice(0, 4)}, {k}, {k}),
                    "attention: q has 4 rows for 2 samples of 3 queries");
  CHECK_THROWS_WITH(call({q}, {k}, {k}, {.keys = Tensor::zeros({3}, DType::i32)}),
                    "attention: lengths of keys is i32 [3], i32 [2] expected");
  const std::vector<int32_t> starts{0, -2};
  CHECK_THROWS_WITH(
      call({q}, {k}, {k}, {.starts = Tensor::from(std::span<const int32_t>(starts), {2})}),
      "attention: the queries of sample 1 begin at position -2");
  s.rotary_base = 100;
  const std::vector<int32_t> late{2, 3};
  CHECK_THROWS_WITH(
      call({q}, {k}, {k}, {.starts = Tensor::from(std::span<const int32_t>(late), {2})}),
      "attention: 3 queries of sample 1 begin at position 3 of 5");
  // A view that two share: without a gradient it is nobody's concern.
  k.set_slot(std::make_shared<GradSlot>());
  Tape tape;
  Recording on(tape);
  CHECK_THROWS_WITH(call({q}, {k}, {k}),
                    "attention: k and v share columns of one tensor, whose gradient is wanted");
}
