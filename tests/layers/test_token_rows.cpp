// Where tokens are, padded and packed: the forms' tensors, and that layers that work token by token
// give packed tokens what they give them in a padded batch.
#include <map>

#include "core/nn/parameter_store.h"
#include "core/ops/linear_cross_entropy.h"
#include "layers/embedding.h"
#include "layers/feed_forward.h"
#include "layers/norm.h"
#include "layers/self_attention.h"
#include "tests/support/gradient_check.h"
#include "tests/support/targets_for.h"

using namespace adagate;
using namespace adagate::test;

namespace {

const std::vector<int32_t> kLengths = {3, 0, 5, 1};
constexpr int64_t kSequence = 5, kVocabulary = 13, kWidth = 8;
const std::vector<int64_t> kPlaces = {4, 9, 2, 7};

template <class T>
std::vector<T> values_of(const Tensor& x) {
  return {x.data<T>(), x.data<T>() + x.numel()};
}

// The real tokens' rows of a padded tensor.
Tensor real_rows(const Tensor& padded) {
  int64_t rows = 0;
  for (int32_t length : kLengths) rows += length;
  Tensor packed =
      Tensor::empty(padded.shape().rank() == 1 ? Shape{rows} : Shape{rows, kWidth}, padded.dtype());
  int64_t next = 0;
  for (size_t s = 0; s < kLengths.size(); ++s)
    for (int64_t t = 0; t < kLengths[s]; ++t, ++next) {
      int64_t row = static_cast<int64_t>(s) * kSequence + t;
      packed.slice(next, next + 1).copy_from(padded.slice(row, row + 1));
    }
  return packed;
}

// Everything a decoder does with each token alone.
class TokenModel : public Module {
 public:
  TokenModel() {
    add("embedding", embedding_);
    add("norm", norm_);
    add("feed_forward", feed_forward_);
  }
  Tensor hidden(const Tensor& tokens, const TokenRows& rows) {
    StepContext context{.training = true, .seed = 3};
    Tensor x =
        dropout(embedding_.forward(tokens, rows), context.dropout_site(0.3, 1), rows.addresses);
    Tensor y = feed_forward_.forward(norm_.forward(x), context, rows);
    return bias_dropout_add(y, Tensor(), x, context.dropout_site(0.3, 2), rows.addresses);
  }
  CrossEntropy loss(const Tensor& tokens, const Tensor& targets, const TokenRows& rows) {
    return linear_cross_entropy(hidden(tokens, rows), embedding_.table(),
                                targets_for(embedding_.table(), targets), 0.1);
  }

 private:
  Embedding embedding_{
      {.vocabulary = kVocabulary, .width = kWidth, .positions = 6, .initial_stddev = 0.5}};
  Norm norm_{NormKind::layer_norm, kWidth, 1e-5};
  FeedForward feed_forward_{
      {.width = kWidth, .hidden = 12, .initial_stddev = 0.5, .output_initial_stddev = 0.5}};
};

struct TokenRun {
  Tensor hidden;
  CrossEntropy loss;
  std::map<std::string, Tensor> gradients;
};

TokenRun run_tokens(const Tensor& tokens, const Tensor& targets, const TokenRows& rows) {
  TokenModel model;
  ParameterStore store(model, {.master = DType::f64, .compute = DType::f64, .allocate_grad = {}});
  store.initialize(1);
  store.clear_gradients();
  TokenRun run;
  run.hidden = model.hidden(tokens, rows);
  Tape tape;
  {
    Recording on(tape);
    run.loss = model.loss(tokens, targets, rows);
  }
  tape.backward(run.loss.loss);
  for (Parameter* p : store.parameters()) run.gradients[p->name()] = p->grad().clone();
  return run;
}

}  // namespace

TEST_CASE("padded rows: positions, lengths, mask", "[layers]") {
  TokenRows rows = padded_rows(kLengths, kSequence);
  CHECK(!rows.packed());
  CHECK(rows.samples == 4);
  CHECK(rows.sequence == 5);
  CHECK(rows.rows == 20);
  CHECK(values_of<int32_t>(rows.lengths) == kLengths);
  CHECK(values_of<uint8_t>(rows.mask) ==
        std::vector<uint8_t>{1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0});
  CHECK(values_of<int32_t>(rows.positions) ==
        std::vector<int32_t>{0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4});
  CHECK(!rows.addresses);
  CHECK(!rows.sample_ids);
  TokenRows later = padded_rows(1, 2, 7);
  CHECK(values_of<int32_t>(later.positions) == std::vector<int32_t>{7, 8});
  // Full samples need neither lengths nor a mask, and no samples nothing.
  TokenRows full = padded_rows(std::vector<int32_t>{2, 2}, 2);
  CHECK(!full.lengths);
  CHECK(!full.mask);
  CHECK(padded_rows(std::vector<int32_t>{}, 0).rows == 0);
  CHECK_THROWS_WITH(padded_rows(kLengths, 4), "a sample of 5 tokens, padded to 4");
}

TEST_CASE("packed rows: starts, positions, no padding", "[layers]") {
  TokenRows rows = packed_rows(kLengths);
  CHECK(rows.packed());
  CHECK(rows.samples == 4);
  CHECK(rows.sequence == 5);
  CHECK(rows.rows == 9);
  CHECK(values_of<int32_t>(rows.starts) == std::vector<int32_t>{0, 3, 3, 8, 9});
  CHECK(values_of<int32_t>(rows.positions) == std::vector<int32_t>{0, 1, 2, 0, 1, 2, 3, 4, 0});
  CHECK(!rows.lengths);
  CHECK(!rows.mask);
  CHECK(packed_rows(std::vector<int32_t>{}).rows == 0);
  CHECK(packed_rows(std::vector<int32_t>{}).packed());
  CHECK_THROWS_WITH(packed_rows(std::vector<int32_t>{1, -1}), "a sample of -1 tokens");
}

TEST_CASE("a token's address is that of its sample and position, in either form", "[layers]") {
  TokenRows padded = padded_rows(kLengths, kSequence), packed = packed_rows(kLengths);
  set_addresses(padded, kPlaces);
  set_addresses(packed, kPlaces);
  CHECK(values_of<int64_t>(padded.addresses)[11] == (int64_t{2} << 32) + 1);
  CHECK(values_of<int64_t>(packed.addresses) == values_of<int64_t>(real_rows(padded.addresses)));
  CHECK_THROWS_WITH(set_addresses(packed, std::vector<int64_t>{1}), "1 places for 4 samples");
}

TEST_CASE("packed tokens get what they get in a padded batch", "[layers]") {
  TokenRows padded = padded_rows(kLengths, kSequence), packed = packed_rows(kLengths);
  set_addresses(padded, kPlaces);
  set_addresses(packed, kPlaces);
  Tensor tokens = random_integers({20}, 1, 0, kVocabulary);
  Tensor targets = random_integers({20}, 2, 0, kVocabulary);
  for (int64_t i = 0; i < 20; ++i)
    if (!padded.mask.data<uint8_t>()[i]) targets.data<int32_t>()[i] = -1;
  TokenRun a = run_tokens(tokens, targets, padded);
  TokenRun b = run_tokens(real_rows(tokens), real_rows(targets), packed);
  CHECK(relative_error(b.hidden, real_rows(a.hidden)) <= 1e-14);
  CHECK(b.loss.valid == a.loss.valid);
  CHECK(b.loss.sum.to_doubles()[0] == Approx(a.loss.sum.to_doubles()[0]).epsilon(1e-13));
  REQUIRE(b.gradients.size() == 8);
  for (auto& [name, gradient] : b.gradients) {
    INFO(name);
    CHECK(relative_error(gradient, a.gradients.at(name)) <= 1e-13);
  }
}

TEST_CASE("self-attention refuses packed samples", "[layers]") {
  SelfAttention layer({.width = 8, .heads = 2, .kv_heads = 2});
  ParameterStore store(layer, {});
  CHECK_THROWS_WITH(
      layer.forward(Tensor::zeros({9, 8}, DType::f32), StepContext{}, packed_rows(kLengths)),
      "self-attention: 4 samples in 9 packed rows; it works on padded samples only, as "
      "padded_rows() describes them");
}
