// Blockwise self-attention against the textbook formula.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/ops/attention.h"
#include "tests/support/attention_reference.h"
#include "tests/support/gradient_check.h"
#include "tests/support/op_cases_attention.h"
#include "tests/support/tested_tiles.h"

#ifdef _OPENMP
#include <omp.h>
#endif

using namespace adagate;
using namespace adagate::test;

namespace {

struct Problem {
  AttentionShape shape;
  Tensor qkv, lengths;
  DropoutSite site;
  Tensor ids;
};

Problem problem(const AttentionVariant& v, int64_t sequence) {
  Problem p{v.shape, {}, {}, dropout_site(v.dropout), {}};
  p.shape.sequence = sequence;
  const int64_t rows = p.shape.batch * sequence;
  p.qkv = random_normal({rows, (v.shape.heads + 2 * v.shape.kv_heads) * v.shape.head_dim}, 1);
  if (v.lengths) p.lengths = attention_lengths(p.shape.batch, sequence);
  p.ids = token_addresses(rows);
  return p;
}

Tensor reference(const Problem& p) {
  const int64_t k = p.shape.heads * p.shape.head_dim, v = k + p.shape.kv_heads * p.shape.head_dim;
  return plain_attention(
      {p.shape, {p.qkv, 0}, {p.qkv, k}, {p.qkv, v}, {p.lengths, p.lengths, {}}, p.site, p.ids});
}

Tensor run(const Problem& p, DType type = DType::f64) {
  return attention(p.qkv.to(type), p.shape, p.lengths, p.site, p.ids);
}

void use_threads(int n) {
#ifdef _OPENMP
  omp_set_num_threads(n);
#else
  (void)n;
#endif
}

// Output and dqkv, f64 holding the exact values of `type`.
std::pair<std::vector<double>, std::vector<double>> both_ways(const Problem& p, DType type) {
  Tensor x = p.qkv.to(type).clone();
  x.set_slot(std::make_shared<GradSlot>());
  Tape tape;
  Recording on(tape);
  Tensor y = attention(x, p.shape, p.lengths, p.site, p.ids);
  tape.backward(y, random_normal(y.shape(), 9).to(type));
  return {y.to_doubles(), x.slot()->value().to_doubles()};
}

}  // namespace

TEST_CASE("attention follows the formula across block borders") {
  for (const AttentionVariant& v : attention_variants()) {
    for (int64_t sequence : {1, 2, 15, 64, 129, 200}) {
      INFO(v.name << ", sequence " << sequence);
      Problem p = problem(v, sequence);
      Tensor expected = reference(p);
      CHECK(relative_error(run(p), expected) < 1e-12);
      CHECK(relative_error(run(p, DType::f32), expected) < 1e-5);
      for (MatrixTiles tiles : tested_tiles()) {
        INFO(name_of(tiles));
        UseTiles use(tiles);
        CHECK(relative_error(run(p, DType::bf16), expected) < 3e-2);
      }
    }
  }
}

TEST_CASE("attention follows the formula when scores lie hundreds apart") {
  for (const AttentionVariant& v : attention_variants()) {
    INFO(v.name);
    Problem p = problem(v, 150);
    for (int64_t i = 0; i < p.qkv.numel(); ++i) p.qkv.data<double>()[i] *= 16;
    p.qkv = p.qkv.to(DType::bf16).to(DType::f64);
    Tensor expected = reference(p);
    CHECK(relative_error(run(p), expected) < 1e-10);
    CHECK(relative_error(run(p, DType::f32), expected) < 2e-3);
    // Turned by their positions, bf16 numbers are rounded, and such scores with them.
    if (v.shape.rotary_base == 0) CHECK(relative_error(run(p, DType::bf16), expected) < 3e-2);
  }
}

TEST_CASE("attention's gradient is right across block borders") {
  for (const AttentionVariant& v : attention_variants()) {
    INFO(v.name);
    Problem p = problem(v, 150);
    auto function = [&](std::span<const Tensor> in) {
      return std::vector{attention(in[0], p.shape, p.lengths, p.site, p.ids)};
    };
    check_gradients({{p.qkv}}, function);
    auto exact = both_ways(p, DType::f64), single = both_ways(p, DType::f32);
    const Shape flat{p.qkv.numel()};
    CHECK(relative_error(Tensor::from(std::span<const double>(single.second), flat),
                         Tensor::from(std::span<const double>(exact.second), flat)) < 1e-5);
    for (MatrixTiles tiles : tested_tiles()) {
      INFO(name_of(tiles));
      UseTiles use(tiles);
      auto half = both_ways(p, DType::bf16);
      CHECK(relative_error(Tensor::from(std::span<const double>(half.second), flat),
                           Tensor::from(std::span<const double>(exact.second), flat)) < 4e-2);
    }
  }
}

TEST_CASE("attention does not depend on the number of threads") {
  for (const AttentionVariant& v : attention_variants()) {
    for (DType type : {DType::f32, DType::bf16}) {
      INFO(v.name << " " << name_of(type));
      // 333 queries of one sample: two and eight threads take slices, one thread does not.
      Problem p = problem(v, 333);
      for (MatrixTiles tiles : tested_tiles()) {
        INFO(name_of(tiles));
        UseTiles use(tiles);
        use_threads(1);
        auto one = both_ways(p, type);
        for (int threads : {2, 8}) {
          use_threads(threads);
          CHECK(one == both_ways(p, type));
        }
        use_threads(2);
      }
    }
  }
}

TEST_CASE("attention refuses what does not fit") {
  AttentionShape s{.batch = 2, .sequence = 3, .heads = 4, .kv_heads = 3, .head_dim = 8};
  Tensor qkv = Tensor::zeros({6, 96}, DType::f32);
  CHECK_THROWS_WITH(attention(qkv, s, {}, {}, {}),
                    "attention: 4 heads are not a multiple of 3 key-value heads");
  s.kv_heads = 2;
  CHECK_THROWS_WITH(attention(qkv, s, {}, {}, {}),
                    "attention: qkv is [6, 96], [6, 64] expected for batch 2, sequence 3, "
                    "4 + 2 x 2 heads of 8");
  s.kv_heads = 4;
  for (double scale : {-0.5, std::nan("")}) {
    s.scale = scale;
    CHECK_THROWS_WITH(attention(qkv, s, {}, {}, {}),
                      Catch::Contains("the scale of the scores is negative"));
  }
  s.scale = 0;
  CHECK_THROWS_AS(attention(qkv, s, Tensor::zeros({3}, DType::i32), {}, {}), Error);
  CHECK_THROWS_AS(attention(qkv, s, {}, {Rng(), 0.5}, {}), Error);
  s.batch = 0;
  CHECK(attention(Tensor::empty({0, 96}, DType::f32), s, {}, {}, {}).numel() == 0);
}

TEST_CASE("rotary tables hold the angles of their base, however long they have become") {
  struct Asked {
    double base;
    int64_t head_dim;
  };
  for (int64_t positions : {1, 64, 65, 300, 20}) {
    for (Asked a : {Asked{10000.0, 8}, {500.0, 8}, {500.0, 2}, {500.0, 64}, {1e6, 64}}) {
      for (DType type : {DType::f64, DType::f32}) {
        INFO("base " << a.base << ", head_dim " << a.head_dim << ", " << positions << " positions, "
                     << name_of(type));
        RotaryTable table = rotary_table(a.base, a.head_dim, positions, type);
        const int64_t half = a.head_dim / 2;
        REQUIRE(table.cosines.dtype() == type);
        REQUIRE(table.cosines.cols() == half);
        REQUIRE(table.cosines.rows() >= positions);
        REQUIRE(table.sines.shape() == table.cosines.shape());
        auto cosines = table.cosines.to_doubles(), sines = table.sines.to_doubles();
        double worst = 0;
        for (int64_t t = 0; t < positions; ++t)
          for (int64_t i = 0; i < half; ++i) {
            const double exponent = static_cast<double>(2 * i) / static_cast<double>(a.head_dim);
            const double angle = static_cast<double>(t) / std::pow(a.base, exponent);
            const auto at = static_cast<size_t>(t * half + i);
            worst = std::max({worst, std::abs(cosines[at] - std::cos(angle)),
                              std::abs(sines[at] - std::sin(angle))});
          }
        // The angles, up to 299, are f32 numbers made of f32 frequencies.
        CHECK(worst < 299 * 3e-7);
      }
    }
  }
}

TEST_CASE("attention on tiles reads nothing but what has been written") {
  // Memory that was never written would be NaN here.
  for (MatrixTiles tiles : tested_tiles()) {
    UseTiles use(tiles);
    for (int64_t sequence : {1, 7, 16, 31, 33, 63, 65, 127, 131, 257}) {
      for (int64_t head_dim : {6, 32, 48}) {
        for (bool causal : {true, false}) {
          INFO(name_of(tiles) << ", sequence " << sequence << ", head " << head_dim << ", causal "
                              << causal);
          AttentionVariant v{"", {.batch = 2, .heads = 2, .kv_heads = 1, .head_dim = head_dim}};
          v.shape.causal = causal;
          v.lengths = sequence % 2 == 1;
          Problem p = problem(v, sequence);
          {
            Tensor poison = Tensor::empty({int64_t{1} << 21}, DType::u8);
            std::memset(poison.raw(), 0xff, poison.bytes());
          }
          auto [y, dqkv] = both_ways(p, DType::bf16);
          CHECK(std::all_of(y.begin(), y.end(), [](double x) { return std::isfinite(x); }));
          CHECK(std::all_of(dqkv.begin(), dqkv.end(), [](double x) { return std::isfinite(x); }));
        }
      }
    }
  }
}
