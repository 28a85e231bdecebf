// Every place of the model draws its own dropout, anew at every step.
#include <cmath>
#include <set>

#include "core/nn/parameter_store.h"
#include "models/decoder.h"
#include "tests/support/catch.h"

namespace adagate::test {
namespace {

constexpr int64_t kLayers = 2, kWidth = 64, kTokens = 8;

// Both branches of every block add the same constant to all elements and nothing else, so an
// element of the residual stream counts the branches that kept it.
class CountingDecoder {
 public:
  CountingDecoder()
      : decoder_(config(), {}, make_self_mesh()),
        store_(decoder_, {.master = DType::f64, .compute = DType::f64, .allocate_grad = {}}) {
    store_.initialize(1);
    for (Parameter* p : store_.parameters()) {
      const std::string& name = p->name();
      if (name.ends_with("output.bias") || name.ends_with("down.bias")) p->master().fill(1);
      if (name.ends_with("output.weight") || name.ends_with("down.weight")) p->master().fill(0);
      if (name.starts_with("embedding.")) p->master().fill(0);
    }
  }

  std::vector<double> hidden(int64_t step, uint64_t seed = 3) {
    ForwardContext context{.training = true, .seed = seed, .step = step, .batch = 1};
    context.sequence = kTokens;
    context.row_ids = Tensor::empty({kTokens}, DType::i64);
    for (int64_t t = 0; t < kTokens; ++t) context.row_ids.data<int64_t>()[t] = t;
    return decoder_.forward(Tensor::zeros({kTokens}, DType::i32), context).to_doubles();
  }

 private:
  static ModelConfig config() {
    ModelConfig m;
    m.layers = kLayers;
    m.width = kWidth;
    m.heads = 2;
    m.context = kTokens;
    m.vocabulary = 5;
    m.dropout = 0.5;
    return m;
  }

  Decoder decoder_;
  ParameterStore store_;
};

}  // namespace

TEST_CASE("dropout: each branch of each block drops other elements", "[models]") {
  std::vector<double> hidden = CountingDecoder().hidden(0);
  size_t most = 0;
  for (int64_t t = 0; t < kTokens; ++t) {
    std::set<int64_t> values;  // the last norm keeps equal elements equal
    for (int64_t c = 0; c < kWidth; ++c)
      values.insert(std::llround(1e6 * hidden[static_cast<size_t>(t * kWidth + c)]));
    most = std::max(most, values.size());
    CHECK(values.size() > 3);  // as many as there are when two and two are the same
  }
  CHECK(most == 2 * kLayers + 1);
}

TEST_CASE("dropout: every step, seed and token draws anew", "[models]") {
  CountingDecoder decoder;
  std::vector<double> first = decoder.hidden(0);
  CHECK(decoder.hidden(0) == first);
  CHECK(decoder.hidden(1) != first);
  CHECK(decoder.hidden(0, 4) != first);
  auto row = [&](size_t t) {
    auto begin = first.begin() + static_cast<std::ptrdiff_t>(t * kWidth);
    return std::vector<double>(begin, begin + kWidth);
  };
  for (size_t t = 1; t < kTokens; ++t) CHECK(row(t) != row(0));
}

}  // namespace adagate::test
