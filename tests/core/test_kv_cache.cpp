// Attention to cached keys and values: what is computed by steps, for several sequences and after
// their reordering is what each one's whole history gives at once.
#include <algorithm>
#include <vector>

#include "core/ops/kv_cache.h"
#include "tests/support/gradient_check.h"

using namespace adagate;
using namespace adagate::test;
using Catch::Matchers::Contains;

namespace {

double bound_of(DType type) {
  return type == DType::f64 ? 1e-12 : type == DType::f32 ? 1e-5 : 2e-2;
}

Tensor integers(const std::vector<int32_t>& values) {
  return Tensor::from(std::span<const int32_t>(values), {static_cast<int64_t>(values.size())});
}

// Sequences that are fed to one cache, with all that each has been fed.
class Sequences {
 public:
  Sequences(int64_t count, AttentionShape shape, DType type)
      : shape_(shape), type_(type), histories_(static_cast<size_t>(count)) {
    cache.sequences = count;
  }

  // Feeds `rows` new rows to each, of which counts[i] are real (empty: all), and compares.
  void feed(int64_t rows, const std::vector<int32_t>& counts = {}) {
    const auto sequences = static_cast<int64_t>(histories_.size());
    const int64_t cols = (shape_.heads + 2 * shape_.kv_heads) * shape_.head_dim;
    Tensor qkv = random_normal({sequences * rows, cols}, ++salt_).to(type_);
    AttentionShape step = shape_;
    step.batch = sequences;
    step.sequence = rows;
    Tensor out = attention_step(qkv, step, cache, counts.empty() ? Tensor() : integers(counts));
    for (int64_t s = 0; s < sequences; ++s) {
      INFO("sequence " << s << ", " << rows << " rows behind " << histories_[s].size());
      const int64_t real = counts.empty() ? rows : counts[static_cast<size_t>(s)];
      for (int64_t t = 0; t < real; ++t)
        histories_[static_cast<size_t>(s)].push_back(
            qkv.slice(s * rows + t, s * rows + t + 1).to_doubles());
      CHECK(lengths()[static_cast<size_t>(s)] == length_of(s));
      compare(s, out.slice(s * rows, (s + 1) * rows), real);
    }
  }

  void reorder(const std::vector<int32_t>& indices) {
    cache.reorder(integers(indices));
    std::vector<History> next;
    for (int32_t i : indices) next.push_back(histories_[static_cast<size_t>(i)]);
    histories_ = next;
    CHECK(cache.sequences == static_cast<int64_t>(indices.size()));
  }

  std::vector<int32_t> lengths() const { return cache.lengths.to_host<int32_t>(); }
  int64_t length_of(int64_t s) const {
    return static_cast<int64_t>(histories_[static_cast<size_t>(s)].size());
  }

  KvCache cache;

 private:
  using History = std::vector<std::vector<double>>;

  // The last `real` rows of the whole history at once; zeros after them.
  void compare(int64_t s, const Tensor& got, int64_t real) const {
    AttentionShape whole = shape_;
    whole.batch = 1;
    whole.sequence = length_of(s);
    std::vector<double> flat;
    for (const auto& row : histories_[static_cast<size_t>(s)])
      flat.insert(flat.end(), row.begin(), row.end());
    const int64_t cols = (shape_.heads + 2 * shape_.kv_heads) * shape_.head_dim;
    Tensor all = Tensor::from(std::span<const double>(flat), {length_of(s), cols}, type_);
    Tensor expected = attention(all, whole, {}, {}, {});
    CHECK(relative_error(got.slice(0, real), expected.slice(length_of(s) - real, length_of(s))) <
          bound_of(type_));
    for (double x : got.slice(real, got.dim(0)).to_doubles()) CHECK(x == 0);
  }

  AttentionShape shape_;
  DType type_;
  std::vector<History> histories_;
  uint64_t salt_ = 0;
};

AttentionShape grouped(double rotary, int64_t head_dim = 6) {
  return {.heads = 4, .kv_heads = 2, .head_dim = head_dim, .rotary_base = rotary};
}

}  // namespace

TEST_CASE("attention by steps equals attention at once") {
  // A base of its own: no other test has made the tables longer than these steps ask for.
  for (double rotary : {0.0, 150.0}) {
    for (int64_t head_dim : {6, 80}) {
      for (DType type : {DType::f64, DType::f32, DType::bf16}) {
        INFO("rotary " << rotary << ", head_dim " << head_dim << ", " << name_of(type));
        AttentionShape s{.batch = 1,
                         .sequence = 91,
                         .heads = 4,
                         .kv_heads = 2,
                         .head_dim = head_dim,
                         .rotary_base = rotary};
        Tensor qkv = random_normal({91, 8 * head_dim}, 1).to(type);
        const double bound = bound_of(type);
        KvCache cache;
        Tensor steps = Tensor::empty({91, 4 * head_dim}, type);
        // Many rows at once, also behind an odd number of cached ones, and one by one.
        for (int64_t at = 0, rows = 41; at < 91; at += rows, rows = at < 77 ? 1 : 14) {
          AttentionShape step = s;
          step.sequence = rows;
          Tensor part = attention_step(qkv.slice(at, at + rows).clone(), step, cache);
          steps.slice(at, at + rows).copy_from(part);
          CHECK(cache.length == at + rows);
        }
        CHECK(relative_error(steps, attention(qkv, s, {}, {}, {})) < bound);
      }
    }
  }
}

TEST_CASE("attention by steps, both ways: rows see those that came before or with them") {
  for (DType type : {DType::f64, DType::f32, DType::bf16}) {
    AttentionShape s{.batch = 1,
                     .heads = 4,
                     .kv_heads = 2,
                     .head_dim = 6,
                     .causal = false,
                     .rotary_base = 150.0};
    Tensor qkv = random_normal({40, 8 * s.head_dim}, 1).to(type);
    const double bound = bound_of(type);
    KvCache cache;
    for (int64_t rows : {3, 1, 5, 9, 7, 12}) {  // up to 7 row by row, more blockwise
      const int64_t at = cache.length, end = at + rows;
      INFO(name_of(type) << ", rows " << at << " to " << end);
      s.sequence = rows;
      Tensor part = attention_step(qkv.slice(at, end).clone(), s, cache);
      s.sequence = end;
      Tensor whole = attention(qkv.slice(0, end).clone(), s, {}, {}, {});
      CHECK(relative_error(part, whole.slice(at, end)) < bound);
    }
  }
}

TEST_CASE("sequences of different lengths share a cache") {
  for (double rotary : {0.0, 170.0}) {
    for (DType type : {DType::f64, DType::f32, DType::bf16}) {
      INFO("rotary " << rotary << ", " << name_of(type));
      Sequences three(3, grouped(rotary), type);
      three.feed(9, {3, 9, 1});  // prompts
      CHECK(three.lengths() == std::vector<int32_t>{3, 9, 1});
      three.feed(1);
      three.feed(4, {4, 0, 2});
      three.feed(70, {70, 1, 33});  // past the first 64 rows
      three.feed(1);
      three.feed(3);
      CHECK(three.cache.length >= three.length_of(0));
    }
  }
}

TEST_CASE("beams go on from the history that they were given") {
  for (double rotary : {0.0, 170.0}) {
    for (DType type : {DType::f64, DType::bf16}) {
      INFO("rotary " << rotary << ", " << name_of(type));
      Sequences beams(1, grouped(rotary, 40), type);
      beams.feed(11);
      beams.reorder({0, 0, 0});
      beams.feed(1);
      beams.feed(1);
      beams.reorder({2, 0, 2, 1, 2});  // more
      beams.feed(1);
      beams.feed(2, {1, 2, 0, 2, 1});
      beams.reorder({4, 3});  // fewer
      beams.feed(1);
      beams.feed(80);
      beams.reorder({1});
      beams.feed(1);
    }
  }
}

TEST_CASE("a cache that has seen nothing takes another number of sequences") {
  Sequences two(2, grouped(0), DType::f64);
  two.reorder({1, 0, 0});
  two.feed(2);
  CHECK(two.lengths() == std::vector<int32_t>{2, 2, 2});
}

TEST_CASE("a copy of a cache goes on apart") {
  Sequences one(1, grouped(170.0), DType::f64);
  one.feed(5);
  Sequences other = one;
  one.feed(1);
  other.feed(2);
  one.feed(1);
  other.feed(1);
}

TEST_CASE("attention to a cache that stays is cross-attention") {
  for (DType type : {DType::f64, DType::f32, DType::bf16}) {
    for (int64_t queries : {1, 3, 40}) {
      INFO(name_of(type) << ", " << queries << " queries");
      constexpr int64_t kKeys = 20;
      AttentionShape s{
          .batch = 3, .sequence = kKeys, .heads = 4, .kv_heads = 2, .head_dim = 6, .causal = false};
      Tensor kv = random_normal({3 * kKeys, 24}, 1).to(type), counts = integers({20, 0, 7});
      Tensor q = random_normal({3 * queries, 30}, 2).to(type);
      KvCache cache{.sequences = 3};
      cache.append({kv, 0}, {kv, 12}, s, counts);
      s.sequence = queries;
      Tensor lengths = integers({0, 1, static_cast<int32_t>(queries)});
      Tensor got = attention_to_cache({q, 6}, s, cache, lengths);
      Tensor expected = attention({q, 6}, {kv, 0}, {kv, 12}, s, {lengths, counts, {}}, {}, {});
      CHECK(relative_error(got, expected) < bound_of(type));
      cache.reorder(integers({2, 2, 0}));
      Tensor beams = attention_to_cache({q, 6}, s, cache);
      AttentionRows rows{.keys = integers({7, 7, 20})};
      for (int64_t b = 0; b < 3; ++b) {
        const int64_t from = b < 2 ? 2 : 0;
        Tensor own = kv.slice(from * kKeys, (from + 1) * kKeys);
        AttentionShape one = s;
        one.batch = 1;
        Tensor alone = attention({q.slice(b * queries, (b + 1) * queries), 6}, {own, 0}, {own, 12},
                                 one, {.keys = rows.keys.slice(b, b + 1)}, {}, {});
        CHECK(relative_error(beams.slice(b * queries, (b + 1) * queries), alone) < bound_of(type));
      }
    }
  }
  AttentionShape s{.batch = 1, .sequence = 2, .heads = 1, .kv_heads = 1, .head_dim = 3};
  Tensor nothing = attention_to_cache({Tensor::full({2, 3}, DType::f32, 1.0)}, s, KvCache{});
  CHECK(nothing.to_doubles() == std::vector<double>(6, 0.0));
}

TEST_CASE("positions go on behind each sequence's rows") {
  KvCache cache{.sequences = 2};
  CHECK(next_positions(cache, 2, {}).to_host<int32_t>() == std::vector<int32_t>{0, 1, 0, 1});
  AttentionShape s{.batch = 2, .sequence = 4, .heads = 1, .kv_heads = 1, .head_dim = 2};
  Tensor rows = Tensor::zeros({8, 2}, DType::f32);
  cache.append({rows}, {rows}, s, integers({4, 1}));
  CHECK(next_positions(cache, 2, {}).to_host<int32_t>() == std::vector<int32_t>{4, 5, 1, 2});
}

TEST_CASE("caches refuse rows and sequences that don't fit") {
  AttentionShape s{.batch = 2, .sequence = 3, .heads = 1, .kv_heads = 1, .head_dim = 2};
  Tensor rows = Tensor::zeros({6, 2}, DType::f32);
  KvCache cache{.sequences = 2};
  cache.append({rows}, {rows}, s);
  auto append = [&](const Tensor& more, const Tensor& counts = {}) {
    KvCache copy = cache;
    copy.append({more}, {more}, s, counts);
  };
  CHECK_THROWS_WITH(append(rows.to(DType::f64)),
                    "key-value cache: 2 columns of f64 for a cache of 2 columns of f32");
  CHECK_THROWS_WITH(append(Tensor::zeros({5, 2}, DType::f32)),
                    "key-value cache: 5 rows for 2 sequences of 3");
  CHECK_THROWS_WITH(append(rows, integers({1})),
                    "key-value cache: lengths are i32 [1], i32 [2] expected");
  CHECK_THROWS_WITH(cache.append({rows, 1}, {rows}, s), Contains("columns [1, 3) of [6, 2]"));
  CHECK_THROWS_WITH(cache.reorder(integers({0, 2})),
                    "key-value cache: sequence 1 is to continue sequence 2 of 2");
  CHECK_THROWS_WITH(cache.reorder(integers({-1})), Contains("sequence 0 is to continue"));
  CHECK_THROWS_WITH(cache.reorder(Tensor::zeros({1}, DType::i64)), Contains("i32 expected"));
  CHECK_THROWS_WITH(attention_to_cache({rows.to(DType::f64)}, s, cache),
                    Contains("1 heads of 2 f64 for a cache of 2 columns of f32"));
  s.batch = 3;
  s.sequence = 2;
  CHECK_THROWS_WITH(append(rows), "key-value cache: rows of 3 sequences for 2");
  CHECK_THROWS_WITH(attention_to_cache({rows}, s, cache), Contains("the cache has 2"));
}
