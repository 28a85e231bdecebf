// Generation by steps with several sequences: prompts of their own lengths, beams, and devices.
#include <cstring>

#include "core/nn/parameter_store.h"
#include "models/decoder.h"
#include "tests/support/catch.h"
#include "tests/support/gradient_check.h"
#include "tests/support/guarded_device.h"

namespace adagate::test {
namespace {

constexpr int64_t kContext = 24, kVocabulary = 13;

struct Form {
  const char* name;
  const char* positions;
  int64_t experts;
};

std::vector<Form> forms() {
  return {{"learned", "learned", 0}, {"rotary", "rotary", 0}, {"rotary, MoE", "rotary", 4}};
}

// A decoder whose weights, biases among them, are large enough to matter.
class StepDecoder {
 public:
  explicit StepDecoder(const Form& form, DType type = DType::f64, Device device = {})
      : decoder_(model(form), moe(form), make_self_mesh()),
        store_(decoder_, {.master = type, .compute = type, .device = device}),
        caches_(decoder_.make_caches()) {
    store_.initialize(1);
  }

  void start(int64_t sequences) { caches_ = decoder_.make_caches(sequences); }
  Tensor step(const std::vector<int32_t>& tokens, const std::vector<int32_t>& lengths = {}) {
    const auto count = static_cast<int64_t>(tokens.size());
    Tensor fed = Tensor::from(std::span<const int32_t>(tokens), {count}, decoder_.device());
    return decoder_.step(fed, caches_, lengths).to(Device{});
  }
  void reorder(const std::vector<int32_t>& indices) {
    const auto count = static_cast<int64_t>(indices.size());
    for (KvCache& cache : caches_)
      cache.reorder(Tensor::from(std::span<const int32_t>(indices), {count}, decoder_.device()));
  }
  // Logits after all of one sequence, fed at once.
  Tensor alone(const std::vector<int32_t>& tokens) {
    start(1);
    return step(tokens);
  }

 private:
  static ModelConfig model(const Form& form) {
    ModelConfig m;
    m.layers = 2;
    m.width = 16;
    m.heads = 4;
    m.kv_heads = 2;
    m.context = kContext;
    m.vocabulary = kVocabulary;
    m.positions = form.positions;
    m.initializer_range = 0.4;
    return m;
  }
  static MoeConfig moe(const Form& form) {
    MoeConfig m;
    m.experts = form.experts;
    return m;
  }

  Decoder decoder_;
  ParameterStore store_;
  std::vector<KvCache> caches_;
};

}  // namespace

TEST_CASE("several sequences give each its own logits", "[models]") {
  for (const Form& form : forms()) {
    INFO(form.name);
    StepDecoder together(form), apart(form);
    together.start(3);
    auto check_rows = [&](const Tensor& logits, const std::vector<std::vector<int32_t>>& texts) {
      REQUIRE(logits.shape() == Shape{3, kVocabulary});
      for (int64_t s = 0; s < 3; ++s) {
        INFO("sequence " << s);
        CHECK(relative_error(logits.slice(s, s + 1), apart.alone(texts[static_cast<size_t>(s)])) <
              1e-11);
      }
    };
    // Padded with a token that must not matter.
    check_rows(together.step({5, 7, 0, 0, 1, 2, 3, 4, 9, 0, 0, 0}, {2, 4, 1}),
               {{5, 7}, {1, 2, 3, 4}, {9}});
    check_rows(together.step({8, 6, 4}), {{5, 7, 8}, {1, 2, 3, 4, 6}, {9, 4}});
    check_rows(together.step({1, 2, 3, 4, 5, 6}),
               {{5, 7, 8, 1, 2}, {1, 2, 3, 4, 6, 3, 4}, {9, 4, 5, 6}});
    check_rows(together.step({7, 12, 7, 8, 7, 12}, {1, 2, 1}),
               {{5, 7, 8, 1, 2, 7}, {1, 2, 3, 4, 6, 3, 4, 7, 8}, {9, 4, 5, 6, 7}});
  }
}

TEST_CASE("beams that are reordered go on as if they had been fed alone", "[models]") {
  for (const Form& form : forms()) {
    INFO(form.name);
    StepDecoder beams(form), apart(form);
    beams.step({1, 2, 3});
    beams.reorder({0, 0, 0});
    beams.step({4, 5, 6});
    beams.reorder({2, 0, 2, 1});
    Tensor logits = beams.step({7, 8, 9, 10});
    const std::vector<std::vector<int32_t>> texts = {
        {1, 2, 3, 6, 7}, {1, 2, 3, 4, 8}, {1, 2, 3, 6, 9}, {1, 2, 3, 5, 10}};
    for (int64_t s = 0; s < 4; ++s) {
      INFO("beam " << s);
      CHECK(relative_error(logits.slice(s, s + 1), apart.alone(texts[static_cast<size_t>(s)])) <
            1e-11);
    }
  }
}

TEST_CASE("steps on a device give the CPU's bits", "[models]") {
  for (const Form& form : forms()) {
    INFO(form.name);
    StepDecoder here(form, DType::f32), there(form, DType::f32, guarded_device());
    auto same = [](const Tensor& a, const Tensor& b) {
      return a.shape() == b.shape() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
    };
    for (StepDecoder* d : {&here, &there}) d->start(2);
    CHECK(same(here.step({5, 7, 1, 2}, {1, 2}), there.step({5, 7, 1, 2}, {1, 2})));
    for (StepDecoder* d : {&here, &there}) d->reorder({1, 1, 0});
    CHECK(same(here.step({3, 4, 5}), there.step({3, 4, 5})));
  }
}

TEST_CASE("steps refuse tokens and lengths that don't fit the sequences", "[models]") {
  StepDecoder decoder(forms()[0]);
  decoder.start(2);
  CHECK_THROWS_WITH(decoder.step({1, 2, 3}), "decoder: 3 tokens for 2 sequences");
  CHECK_THROWS_WITH(decoder.step({}), "decoder: 0 tokens for 2 sequences");
  CHECK_THROWS_WITH(decoder.step({1, 2}, {1}), "decoder: 1 lengths for 2 sequences");
  CHECK_THROWS_WITH(decoder.step({1, 2}, {1, 0}), "decoder: a sequence is to go on by 0 tokens");
  CHECK_THROWS_WITH(decoder.step({1, 2}, {1, 2}), "a sample of 2 tokens, padded to 1");
  std::vector<int32_t> long_text(2 * (kContext + 1), 1);
  CHECK_THROWS_WITH(decoder.step(long_text), "25 tokens are more than model.context, 24");
}

}  // namespace adagate::test
